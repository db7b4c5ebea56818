// The local copy of the parameters: shards that arrive, local steps, versions. Knows no socket.

import { byNumber, isFinite } from "../codecs";
import { requireFit } from "../fit";
import { Kind, type Frame } from "../frames";
import type { Shard, Training } from "../protocol";
import { NotFiniteError } from "../errors";
import { distance, stepLocally } from "./local-step";

/** A shard's version when nothing of it is here. */
const NONE = -1;

/** The flat vector and its shards' versions. */
export class Parameters {
  readonly values: Float32Array<ArrayBuffer>;
  readonly #versions: number[];
  readonly #arrived = new Map<number, Frame>();
  readonly #adopted = new Map<number, Frame>();
  /** How far the service moves each shard for a minibatch, going by the last two versions; 0: not known yet. */
  readonly #reach: number[];
  #gradient: Float32Array | null = null;
  /** The shards whose local step with the last gradient is still to be taken. */
  readonly #due = new Set<number>();

  constructor(readonly shards: readonly Shard[], readonly training: Training) {
    this.values = new Float32Array(shards.reduce((end, { offset, size }) => Math.max(end, offset + size), 0));
    this.#versions = shards.map(() => NONE);
    this.#reach = shards.map(() => 0);
  }

  /** For each shard the version that local values descend from. */
  get versions(): readonly number[] {
    return this.#versions;
  }

  /** For each shard the newest version here, adopted or not. */
  get have(): number[] {
    return this.#versions.map((version, shard) => this.#arrived.get(shard)?.version ?? version);
  }

  /** Whether there is something of every shard to train with. */
  get complete(): boolean {
    return this.have.every((version) => version !== NONE);
  }

  /** Keeps a shard that arrived until `adopt`; throws FrameError or NotFiniteError when it is not fit for use. */
  offer(frame: Frame): void {
    requireFit(frame, Kind.PARAMETERS, this.shards, this.training.fetch_codec).check(frame.payload, frame.count);
    this.#arrived.set(frame.shard, frame);
  }

  /** Replaces the local values of every shard that arrived, local steps included, as Downpour does. */
  adopt(): void {
    for (const [index, frame] of this.#arrived) {
      const values = this.#part(this.values, index);
      this.#measure(index, frame, values);
      byNumber(frame.codec).decode(frame.payload, values);
      this.#versions[index] = frame.version;
      this.#adopted.set(index, frame);
      this.#due.delete(index);
    }
    this.#arrived.clear();
  }

  /** The newest values here, adopted or not; overwrites and returns `into` if it is as long. */
  newest(into: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
    const values = into.length === this.values.length ? into : new Float32Array(this.values.length);
    values.set(this.values);
    for (const [index, frame] of this.#arrived) byNumber(frame.codec).decode(frame.payload, this.#part(values, index));
    return values;
  }

  /** Notes the gradient of a minibatch for a local step, which `settle` takes; it must not change until then. */
  step(gradient: Float32Array): void {
    this.#gradient = gradient;
    this.shards.forEach((_, index) => this.#due.add(index));
  }

  /** Takes the local step of the last gradient, on the shards that were not replaced since. */
  settle(): void {
    for (const index of this.#due) {
      const reach = this.#reach[index]!;
      if (this.#gradient === null || reach === 0) continue;
      stepLocally(this.#part(this.values, index), this.#part(this.#gradient, index), this.training, reach);
    }
    this.#due.clear();
  }

  /** Forgets everything, so that all shards are fetched anew. */
  forget(): void {
    this.#versions.fill(NONE);
    this.#arrived.clear();
    this.#due.clear();
  }

  #part(vector: Float32Array, index: number): Float32Array {
    const { offset, size } = this.shards[index]!;
    return vector.subarray(offset, offset + size);
  }

  /** Notes how far the service moved a shard between two versions; overwrites `scratch`, of the shard's size. */
  #measure(index: number, newer: Frame, scratch: Float32Array): void {
    const older = this.#adopted.get(index);
    if (!older || newer.version <= older.version) return;
    const values = new Float32Array(scratch.length);
    byNumber(older.codec).decode(older.payload, scratch);
    byNumber(newer.codec).decode(newer.payload, values);
    this.#reach[index] = distance(values, scratch) / ((newer.version - older.version) * this.training.n_push);
  }
}

/** Throws NotFiniteError unless loss and gradient are finite. */
export function requireUsable(loss: number, gradient: Float32Array): void {
  if (!Number.isFinite(loss)) throw new NotFiniteError(`expected a finite loss, got ${loss}`);
  if (!isFinite(gradient)) throw new NotFiniteError("expected a finite gradient, got NaN or infinity in it");
}
