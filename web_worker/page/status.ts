/** Reads what a gateway says of a job (docs/protocol.md, Status) into checked values. Fetches nothing. */

/** `progressive`: fresh rows of a stream, scored before anybody trained on them. */
export type PointKind = "train" | "held_out" | "progressive";

/** One point of a curve; `seconds` since the job was created, `version` in gradients absorbed. */
export interface CurvePoint {
  readonly index: number;
  readonly kind: PointKind;
  readonly seconds: number;
  readonly version: number;
  readonly values: Readonly<Record<string, number>>;
}

export interface JobStatus {
  readonly job: string;
  readonly run: string;
  readonly state: "running" | "finished";
  readonly reason: string | null;
  readonly parameters: number;
  readonly bytesPerPush: number;
  readonly rows: number;
  readonly epochs: number;
  readonly batchRows: number;
  readonly optimizer: string;
  readonly until: string | null;
  readonly versions: readonly number[];
  readonly updatesPerSecond: number;
  readonly replicas: number;
  /** Those that serve replicas of this job. */
  readonly gateways: number;
  /** Trained so far, those dropped included. */
  readonly minibatches: number;
  /** Those whose loss or gradient was not finite, going by what replicas say. */
  readonly dropped: number;
  readonly backlog: number;
  readonly epoch: number;
  /** Training loss, smoothed; null until known. */
  readonly loss: number | null;
  /** The newest held-out values by name; null until known. */
  readonly metrics: Readonly<Record<string, number>> | null;
  /** The newest values of fresh rows of a stream by name; null until known. */
  readonly progressive: Readonly<Record<string, number>> | null;
  /** What the stream has come to; null of a job without one. */
  readonly stream: StreamStatus | null;
  /** Scorings of held-out data that met `until`; two in a row end the job. */
  readonly met: number;
  /** Epochs without a better score after which the job ends; null where it does not. */
  readonly patience: number | null;
  /** Whether the run has a page of its own. */
  readonly page: boolean;
  /** Why the job is said to diverge, also after its end; null while it does not. */
  readonly diverging: Divergence | null;
  /** Why a running job does not get on; null while it does. */
  readonly stalled: Stall | null;
  readonly curve: readonly CurvePoint[];
}

/** Items that were answered, by what became of them, and the rows that may be leased now. */
export interface StreamStatus {
  readonly gaveRows: number;
  readonly discarded: number;
  readonly rejected: number;
  readonly poolRows: number;
}

/** So many gradients were refused, most for `reason`, in the `seconds` since one was applied. */
export interface Stall {
  readonly reason: string;
  readonly refused: number;
  readonly seconds: number;
}

/**
 * A loss has exploded from `first` to `value`; or without a value, a held-out metric is not a finite number. If that is not
 * certain, the metric itself may be to blame.
 */
export interface Divergence {
  readonly where: "held_out" | "training";
  readonly metric: string;
  readonly certain: boolean;
  readonly value: number | null;
  readonly first: number | null;
}

/** What came is not a status. */
export class StatusError extends Error {
  override readonly name = "StatusError";
}

type Fields = Readonly<Record<string, unknown>>;

/** Reads the answer of `GET /jobs/JOB`. Throws a StatusError that names the field. */
export function readStatus(value: unknown): JobStatus {
  const fields = readFields(value, "status");
  const state = text(fields, "state");
  return {
    job: text(fields, "job"),
    run: text(fields, "run"),
    state: state === "finished" ? "finished" : "running",
    reason: textOrNull(fields, "reason"),
    parameters: number(fields, "parameters"),
    bytesPerPush: number(fields, "bytes_per_push"),
    rows: number(fields, "rows"),
    epochs: number(fields, "epochs"),
    batchRows: number(fields, "batch_rows"),
    optimizer: text(fields, "optimizer"),
    until: textOrNull(fields, "until"),
    versions: list(fields, "versions").map((item) => asNumber(item, "versions")),
    updatesPerSecond: number(fields, "updates_per_second"),
    replicas: number(fields, "replicas"),
    gateways: fields.gateways === undefined ? 0 : number(fields, "gateways"),
    minibatches: fields.minibatches === undefined ? 0 : number(fields, "minibatches"),
    dropped: fields.dropped === undefined ? 0 : number(fields, "dropped"),
    backlog: number(fields, "backlog"),
    epoch: number(fields, "epoch"),
    loss: numberOrNull(fields, "loss"),
    metrics: fields.metrics == null ? null : readValues(fields.metrics, "metrics"),
    progressive: fields.progressive == null ? null : readValues(fields.progressive, "progressive"),
    stream: fields.stream == null ? null : readStream(fields.stream),
    met: fields.met === undefined ? 0 : number(fields, "met"),
    patience: numberOrNull(fields, "patience"),
    page: fields.page === true,
    diverging: fields.diverging == null ? null : readDivergence(fields.diverging),
    stalled: fields.stalled == null ? null : readStall(fields.stalled),
    curve: fields.curve === undefined ? [] : list(fields, "curve").map(readPoint),
  };
}

/** Reads the answer of `GET /jobs`: newest first. */
export function readJobs(value: unknown): readonly JobStatus[] {
  return list(readFields(value, "jobs"), "jobs").map(readStatus);
}

/** Gradients that every shard has absorbed. */
export function gradientsAbsorbed(status: JobStatus): number {
  return status.versions.length === 0 ? 0 : Math.min(...status.versions);
}

function readStream(value: unknown): StreamStatus {
  const fields = readFields(value, "stream");
  return {
    gaveRows: number(fields, "gave_rows"),
    discarded: number(fields, "discarded"),
    rejected: number(fields, "rejected"),
    poolRows: number(fields, "pool_rows"),
  };
}

function readStall(value: unknown): Stall {
  const fields = readFields(value, "stalled");
  return { reason: text(fields, "reason"), refused: number(fields, "refused"), seconds: number(fields, "seconds") };
}

function readDivergence(value: unknown): Divergence {
  const fields = readFields(value, "diverging");
  return {
    where: text(fields, "where") === "training" ? "training" : "held_out",
    metric: text(fields, "metric"),
    certain: fields.certain !== false,
    value: numberOrNull(fields, "value"),
    first: numberOrNull(fields, "first"),
  };
}

function readPoint(value: unknown): CurvePoint {
  const fields = readFields(value, "curve");
  return {
    index: number(fields, "index"),
    kind: readKind(text(fields, "kind")),
    seconds: number(fields, "seconds"),
    version: number(fields, "version"),
    values: readValues(fields.values, "values"),
  };
}

function readKind(kind: string): PointKind {
  return kind === "held_out" || kind === "progressive" ? kind : "train";
}

/** Values that are not finite numbers (a loss that diverged has no JSON number) are left out. */
function readValues(value: unknown, where: string): Readonly<Record<string, number>> {
  const known = Object.entries(readFields(value, where)).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number" && Number.isFinite(entry[1]),
  );
  return Object.fromEntries(known);
}

function readFields(value: unknown, where: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new StatusError(`${where} expects an object, got ${kind(value)}`);
  }
  return value as Fields;
}

function text(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw new StatusError(`${name} expects a string, got ${kind(value)}`);
  return value;
}

function textOrNull(fields: Fields, name: string): string | null {
  return fields[name] == null ? null : text(fields, name);
}

function number(fields: Fields, name: string): number {
  return asNumber(fields[name], name);
}

function numberOrNull(fields: Fields, name: string): number | null {
  return fields[name] == null ? null : number(fields, name);
}

function asNumber(value: unknown, name: string): number {
  if (typeof value !== "number") throw new StatusError(`${name} expects a number, got ${kind(value)}`);
  return value;
}

function list(fields: Fields, name: string): readonly unknown[] {
  const value = fields[name];
  if (!Array.isArray(value)) throw new StatusError(`${name} expects a list, got ${kind(value)}`);
  return value;
}

function kind(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value;
}
