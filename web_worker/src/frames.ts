// Packs and unpacks the binary frames of docs/protocol.md. Knows no codec's arithmetic and no socket.

import { FrameError } from "./errors";

export const HEADER_BYTES = 40;
const ITEM_HEADER_BYTES = 16;

/** What a frame carries: an item has a header of its own. */
export const Kind = { GRADIENT: 1, PARAMETERS: 2 } as const;
const ITEM = 3;
export type Kind = (typeof Kind)[keyof typeof Kind];

/**
 * One frame: the header's fields and the still encoded payload.
 *
 * `version` is the base version of a gradient, or the version of the parameters. `loss` is the mean loss of the
 * `minibatches` whose gradients are summed in it, `rows` the training rows they had.
 */
export interface Frame {
  readonly kind: Kind;
  readonly codec: number;
  readonly shard: number;
  readonly count: number;
  readonly sequence: number;
  readonly version: number;
  readonly loss: number;
  readonly rows: number;
  readonly minibatches: number;
  readonly payload: Uint8Array;
}

/** The frame's bytes: 40 of header, then the payload. */
export function pack(frame: Frame): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + frame.payload.byteLength);
  const header = new DataView(bytes.buffer);
  header.setUint8(0, frame.kind);
  header.setUint8(1, frame.codec);
  header.setUint16(2, frame.shard, true);
  header.setUint32(4, frame.count, true);
  header.setBigUint64(8, BigInt(frame.sequence), true);
  header.setBigUint64(16, BigInt(frame.version), true);
  header.setFloat32(24, frame.loss, true);
  header.setUint32(28, frame.rows, true);
  header.setUint32(32, frame.minibatches, true);
  bytes.set(frame.payload, HEADER_BYTES);
  return bytes;
}

/**
 * Reads one frame; the payload is a view into `data`, not a copy.
 *
 * Throws FrameError: short header, unknown kind, reserved bits, or an integer that JavaScript cannot hold.
 */
export function unpack(data: Uint8Array): Frame {
  if (data.byteLength < HEADER_BYTES) {
    throw new FrameError(`a frame has at least ${HEADER_BYTES} bytes of header, got ${data.byteLength} bytes`);
  }
  const header = new DataView(data.buffer, data.byteOffset, HEADER_BYTES);
  const reserved = header.getUint32(36, true);
  if (reserved !== 0) throw new FrameError(`the reserved field is 0, got ${reserved}`);
  return {
    kind: readKind(header.getUint8(0)),
    codec: header.getUint8(1),
    shard: header.getUint16(2, true),
    count: header.getUint32(4, true),
    sequence: readInteger(header, 8),
    version: readInteger(header, 16),
    loss: header.getFloat32(24, true),
    rows: header.getUint32(28, true),
    minibatches: header.getUint32(32, true),
    payload: data.subarray(HEADER_BYTES),
  };
}

/** The frame of a replica's item `number`: 16 bytes of header, then the payload. */
export function packItem(number: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(ITEM_HEADER_BYTES + payload.byteLength);
  const header = new DataView(bytes.buffer);
  header.setUint8(0, ITEM);
  header.setBigUint64(8, BigInt(number), true);
  bytes.set(payload, ITEM_HEADER_BYTES);
  return bytes;
}

/** Reads the frame of an item. Throws FrameError: another kind, short header, reserved bits, or a number that is none. */
export function unpackItem(data: Uint8Array): { number: number; payload: Uint8Array } {
  if (data[0] !== ITEM) throw new FrameError(`an item's kind is ${ITEM}, got ${data[0]}`);
  if (data.byteLength < ITEM_HEADER_BYTES) {
    throw new FrameError(`an item has ${ITEM_HEADER_BYTES} bytes of header, got ${data.byteLength} bytes`);
  }
  if (data.subarray(1, 8).some((byte) => byte !== 0)) throw new FrameError("the reserved bytes of an item are 0");
  const number = readInteger(new DataView(data.buffer, data.byteOffset, ITEM_HEADER_BYTES), 8);
  if (number < 1) throw new FrameError(`an item's number is at least 1, got ${number}`);
  return { number, payload: data.subarray(ITEM_HEADER_BYTES) };
}

function readKind(kind: number): Kind {
  if (kind === Kind.GRADIENT || kind === Kind.PARAMETERS) return kind;
  throw new FrameError(`a frame's kind is 1 (gradient) or 2 (parameters), got ${kind}`);
}

function readInteger(header: DataView, offset: number): number {
  const value = header.getBigUint64(offset, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new FrameError(`sequence, version and number are at most 2^53 - 1, got ${value}`);
  }
  return Number(value);
}
