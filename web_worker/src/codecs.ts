// Encodes and decodes vectors of float32 for the wire: f32, f16 and int8. Knows no header and no shard.
// Every operation is rounded to float32 as NumPy rounds it, so that both languages write the same bytes.

import { FrameError, NotFiniteError } from "./errors";
import { halfBits, halfValues } from "./half";
import type { CodecName } from "./protocol";

/** Values that share one int8 scale: 0.4 % overhead, and small enough that one outlier spoils few neighbours. */
export const INT8_BLOCK = 1024;

/** The largest scale (bits 0x7c010203): 127 times the next larger float32 would be infinite. */
const INT8_MAX_SCALE = new Float32Array(Uint32Array.of(0x7c010203).buffer)[0]!;

/**
 * One way to write a vector of n float32 values as bytes.
 *
 * `encode(values, uniforms)` returns the payload and throws NotFiniteError when a value is NaN or infinite; `uniforms`
 * (float32 in [0, 1), n of them) decide roundings where `usesNoise`. `check(payload, n)` throws FrameError for a wrong
 * length and NotFiniteError for NaN or infinity. `decode(payload, out)` fills `out` from a payload that was checked.
 */
export interface Codec {
  readonly name: CodecName;
  readonly number: number;
  readonly usesNoise: boolean;
  payloadBytes(count: number): number;
  encode(values: Float32Array, uniforms: Float32Array): Uint8Array;
  decode(payload: Uint8Array, out: Float32Array): void;
  check(payload: Uint8Array, count: number): void;
}

/** Whether no value is NaN or infinite. */
export function isFinite(values: Float32Array): boolean {
  // x - x is 0 for a finite x and NaN otherwise, so that one pass without a branch decides.
  let residue = 0;
  for (let i = 0; i < values.length; i++) residue += values[i]! - values[i]!;
  return residue === 0;
}

function requireFinite(values: Float32Array): void {
  if (!isFinite(values)) throw new NotFiniteError("expected finite values, got some that are NaN or infinite");
}

function requireLength(payload: Uint8Array, codec: Codec, count: number): void {
  const expected = codec.payloadBytes(count);
  if (payload.byteLength !== expected) {
    throw new FrameError(`${codec.name} of ${count} values is ${expected} bytes, got ${payload.byteLength}`);
  }
}

// A payload starts anywhere in a message, but a typed array has to start on a multiple of its element's size.
function aligned(payload: Uint8Array, bytes: number, elementBytes: number): Uint8Array {
  const part = payload.subarray(0, bytes);
  return part.byteOffset % elementBytes === 0 ? part : part.slice();
}

function asFloats(payload: Uint8Array, count: number): Float32Array {
  const bytes = aligned(payload, 4 * count, 4);
  return new Float32Array(bytes.buffer, bytes.byteOffset, count);
}

function asHalves(payload: Uint8Array, count: number): Uint16Array {
  const bytes = aligned(payload, 2 * count, 2);
  return new Uint16Array(bytes.buffer, bytes.byteOffset, count);
}

const F32: Codec = {
  name: "f32",
  number: 0,
  usesNoise: false,
  payloadBytes: (count) => 4 * count,
  encode(values) {
    requireFinite(values);
    return new Uint8Array(values.slice().buffer);
  },
  decode(payload, out) {
    out.set(asFloats(payload, out.length));
  },
  check(payload, count) {
    requireLength(payload, F32, count);
    requireFinite(asFloats(payload, count));
  },
};

const F16: Codec = {
  name: "f16",
  number: 1,
  usesNoise: false,
  payloadBytes: (count) => 2 * count,
  encode(values) {
    requireFinite(values);
    const halves = new Uint16Array(values.length);
    for (let i = 0; i < values.length; i++) halves[i] = halfBits(values[i]!);
    return new Uint8Array(halves.buffer);
  },
  decode(payload, out) {
    const halves = asHalves(payload, out.length);
    const table = halfValues();
    for (let i = 0; i < out.length; i++) out[i] = table[halves[i]!]!;
  },
  check(payload, count) {
    requireLength(payload, F16, count);
    // An exponent of all ones is infinity or NaN.
    if (asHalves(payload, count).some((half) => (half & 0x7c00) === 0x7c00)) {
      throw new NotFiniteError("expected finite values, got a half that is NaN or infinite");
    }
  },
};

const int8Blocks = (count: number): number => Math.ceil(count / INT8_BLOCK);

function largestMagnitude(values: Float32Array, start: number, end: number): number {
  let largest = 0;
  for (let i = start; i < end; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > largest) largest = magnitude;
  }
  return largest;
}

// Division and sum are each rounded to float32: the byte must not depend on JavaScript's wider numbers.
function quantizeBlock(values: Float32Array, uniforms: Float32Array, start: number, scale: number, out: Int8Array): void {
  const end = Math.min(start + INT8_BLOCK, values.length);
  for (let i = start; i < end; i++) {
    const level = Math.floor(Math.fround(Math.fround(values[i]! / scale) + uniforms[i]!));
    out[i] = level > 127 ? 127 : level < -127 ? -127 : level;
  }
}

const INT8: Codec = {
  name: "int8",
  number: 2,
  usesNoise: true,
  payloadBytes: (count) => 4 * int8Blocks(count) + count,
  encode(values, uniforms) {
    requireFinite(values);
    const blocks = int8Blocks(values.length);
    const payload = new Uint8Array(INT8.payloadBytes(values.length));
    const scales = new Float32Array(payload.buffer, 0, blocks);
    const levels = new Int8Array(payload.buffer, 4 * blocks);
    for (let block = 0; block < blocks; block++) {
      const start = block * INT8_BLOCK;
      const largest = largestMagnitude(values, start, Math.min(start + INT8_BLOCK, values.length));
      scales[block] = Math.min(largest / 127, INT8_MAX_SCALE);
      // A block of zeros (or of values too small to have a scale) divides by 1 and is written as zeros.
      quantizeBlock(values, uniforms, start, scales[block]! || 1, levels);
    }
    return payload;
  },
  decode(payload, out) {
    const blocks = int8Blocks(out.length);
    const scales = asFloats(payload, blocks);
    const levels = new Int8Array(payload.buffer, payload.byteOffset + 4 * blocks, out.length);
    for (let i = 0; i < out.length; i++) out[i] = levels[i]! * scales[(i / INT8_BLOCK) | 0]!;
  },
  check(payload, count) {
    requireLength(payload, INT8, count);
    const scales = asFloats(payload, int8Blocks(count));
    if (scales.some((scale) => !(scale >= 0) || Math.fround(scale * 127) === Infinity)) {
      throw new NotFiniteError("expected scales that are finite and not negative, got one that is not");
    }
  },
};

export const BY_NAME: Readonly<Record<CodecName, Codec>> = { f32: F32, f16: F16, int8: INT8 };

/** The codec with this number in a frame's header; throws FrameError when there is none. */
export function byNumber(number: number): Codec {
  const codec = [F32, F16, INT8][number];
  if (!codec) throw new FrameError(`a codec is 0 (f32), 1 (f16) or 2 (int8), got ${number}`);
  return codec;
}
