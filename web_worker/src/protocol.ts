// The text messages and close codes of docs/protocol.md, as types and checks. Does no I/O and makes no decision.

import { MessageError, reasonOf } from "./errors";
import { anything, integer, list, nullable, number, object, oneOf, optional, text, type Read, type Reader } from "./schema";

export const VERSION = 1;

/** What this replica understands beyond the first edition of protocol 1: that reason of an ack. */
export const FEATURES: readonly string[] = ["unleased"];

/** Why a socket is closed; what a replica does about each is in `closing.ts`. */
export const Close = {
  NORMAL: 1000,
  TOO_BIG: 1009,
  TRY_AGAIN_LATER: 1013,
  MALFORMED_MESSAGE: 4000,
  HELLO_TIMEOUT: 4001,
  UNSUPPORTED_PROTOCOL: 4002,
  OUT_OF_ORDER: 4003,
  UNKNOWN_JOB: 4004,
  MALFORMED_FRAME: 4005,
  FLOODING: 4006,
} as const;

const replicaId = text({ pattern: /^([0-9a-f]{16}|[0-9a-f]{32})$/ });
const runId = text({ pattern: /^[0-9a-f]{12}$/ });
/** A SHA-256: what names a chunk, and the list of a run's chunks. */
const chunkName = text({ pattern: /^[0-9a-f]{64}$/ });
const natural = integer(0);
const codec = oneOf("f32", "f16", "int8");
const state = oneOf("running", "finished");
const dtype = oneOf("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool");

const parameterArray = object({ name: text(), shape: list(natural), offset: natural });
const shard = object({ offset: natural, size: natural });
const batchArray = object({ name: text(), dtype, shape: list(natural) });
const batchLayout = object({ rows: integer(1), arrays: list(batchArray) });
const training = object({
  n_push: integer(1),
  n_fetch: integer(1),
  local_learning_rate: number,
  max_accumulate: integer(1),
  max_ahead: integer(1),
  push_codec: codec,
  fetch_codec: codec,
  seed: integer(),
  clip_value: optional(nullable(number), null),
  clip_norm: optional(nullable(number), null),
});
const grant = object({
  lease: natural, epoch: natural, chunk: natural, rows: natural, seconds: number,
  /** What the chunk's bytes hash to; null in a run that was submitted before chunks had names. */
  sha256: optional(nullable(chunkName), null),
});

const streamLimits = object({ items_in_flight: integer(1), max_item_bytes: natural });

const fromReplica = {
  hello: object({
    type: oneOf("hello"),
    protocol: integer(),
    replica: nullable(replicaId),
    run: nullable(runId),
    backend: text({ longest: 32 }),
    /** What the replica understands beyond the first edition of protocol 1. */
    features: optional(list(text({ longest: 32 }), 16), []),
    /** What a replica that is back still trains: of other leases it may not know. */
    leases: optional(list(natural, 64), []),
  }),
  fetch: object({ type: oneOf("fetch"), have: list(integer(-1)) }),
  lease: object({ type: oneOf("lease"), count: integer(1, 16) }),
  trained: object({ type: oneOf("trained"), lease: natural }),
  release: object({ type: oneOf("release"), leases: list(natural, 64) }),
  useless: object({ type: oneOf("useless"), minibatches: integer(1, 1000) }),
  dropped: object({ type: oneOf("dropped"), minibatches: integer(1, 1000) }),
  /** Raw data of an interaction; bytes come in a frame. */
  item: object({ type: oneOf("item"), number: integer(1), json: anything }),
};

const fromGateway = {
  welcome: object({
    type: oneOf("welcome"),
    job: text(),
    run: text(),
    replica: text(),
    state,
    program: text(),
    model: optional(oneOf("program", "module"), "program"),
    /** The address of the forward program; null in a job that gives no predictions. */
    predict: optional(nullable(text()), null),
    parameters: list(parameterArray),
    shards: list(shard),
    batch: batchLayout,
    training,
    applied: list(natural),
    credit: integer(1),
    max_frame_bytes: natural,
    contents: optional(nullable(chunkName), null),
    /** Where the chunks are by their names, before the gateway is asked. */
    chunk_url: optional(nullable(text()), null),
    /** What may be sent of raw items; null in a job that takes none. */
    stream: optional(nullable(streamLimits), null),
    /** What the gateway understands beyond the first edition of protocol 1. */
    features: optional(list(text()), []),
  }),
  ack: object({
    type: oneOf("ack"),
    shard: natural,
    sequence: natural,
    status: oneOf("accepted", "duplicate", "busy", "rejected"),
    reason: optional(nullable(oneOf("not-finite", "future-version", "not-running", "expired", "unleased")), null),
    retry_seconds: optional(nullable(number), null),
    version: optional(nullable(natural), null),
  }),
  item_answer: object({
    type: oneOf("item_answer"),
    number: natural,
    status: oneOf("rows", "discarded", "rejected", "busy"),
    rows: optional(natural, 0),
    why: optional(nullable(text()), null),
    retry_seconds: optional(nullable(number), null),
  }),
  leased: object({ type: oneOf("leased"), leases: list(grant) }),
  wait: object({ type: oneOf("wait"), seconds: number, reason: optional(nullable(text()), null) }),
  finished: object({ type: oneOf("finished"), reason: text() }),
  error: object({ type: oneOf("error"), code: integer(), message: text(), retry_seconds: optional(nullable(number), null) }),
};

type MessageOf<Table> = { [K in keyof Table]: Read<Table[K]> }[keyof Table];

export type CodecName = Read<typeof codec>;
export type DType = Read<typeof dtype>;
export type ParameterArray = Read<typeof parameterArray>;
export type Shard = Read<typeof shard>;
export type BatchArray = Read<typeof batchArray>;
export type BatchLayout = Read<typeof batchLayout>;
export type Training = Read<typeof training>;
export type Grant = Read<typeof grant>;
export type Hello = Read<typeof fromReplica.hello>;
export type Welcome = Read<typeof fromGateway.welcome>;
export type ItemAnswer = Read<typeof fromGateway.item_answer>;
export type StreamLimits = Read<typeof streamLimits>;
export type Ack = Read<typeof fromGateway.ack>;
export type FromReplica = MessageOf<typeof fromReplica>;
export type FromGateway = MessageOf<typeof fromGateway>;

function decode<T>(data: string, table: Record<string, Reader<T>>): T {
  try {
    const value: unknown = JSON.parse(data);
    const { type } = object({ type: text() })(value, "");
    const reader = Object.hasOwn(table, type) ? table[type] : undefined;
    if (!reader) throw new Error(`type is one of ${Object.keys(table).join(", ")}, got ${type}`);
    return reader(value, "");
  } catch (error) {
    throw new MessageError(`expected a message of docs/protocol.md: ${reasonOf(error)}`, { cause: error });
  }
}

/** Reads a gateway's message; throws MessageError when it is not one. */
export function decodeFromGateway(data: string): FromGateway {
  return decode<FromGateway>(data, fromGateway);
}

/** Reads a replica's message, as a gateway would; throws MessageError when it is not one. */
export function decodeFromReplica(data: string): FromReplica {
  return decode<FromReplica>(data, fromReplica);
}

/** The message as JSON text. */
export function encode(message: FromReplica | FromGateway): string {
  return JSON.stringify(message);
}
