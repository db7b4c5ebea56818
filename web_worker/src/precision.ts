// Says whether a codec can hold a shard's values; what it cannot hold travels as f32. The twin of crowdlearn/precision.py.

import { halfBits, halfValues } from "./half";
import type { CodecName, ParameterArray, Shard } from "./protocol";

/** Above this magnitude f16 rounds by more than a half, and above 65,504 it holds nothing. */
const MOST = 2048;

/** In an array of at most so many values each may have a scale of its own, as the weights of raw features have. */
const FEW = 64;

/** The smallest f16 with all its 11 bits; smaller values lose bits, and under 2^-25 they become 0. */
const NORMAL = 2 ** -14;

/** What f16 puts a value off by at most, relative to it, where it has all its bits. */
const PRECISION = 2 ** -11;

/** A part of a shard that belongs to one array of the model: its first value and the one behind its last. */
export type Part = readonly [start: number, end: number];

/** The parts of the model's arrays that lie in a shard. */
export function arraysOf(parameters: readonly ParameterArray[], shard: Shard): Part[] {
  const parts = parameters.map(({ offset, shape }): Part => {
    const start = offset - shard.offset;
    return [Math.max(0, start), Math.min(shard.size, start + shape.reduce((size, length) => size * length, 1))];
  });
  return parts.filter(([start, end]) => start < end);
}

/**
 * Whether `codec` holds the values of a shard with these arrays.
 *
 * f32 holds everything. f16 and int8 hold no magnitude over MOST. Beyond that, f16 does not hold an array one of whose
 * values it puts off by more than PRECISION, unless the array has more than FEW values, of a root mean square of at
 * least NORMAL: beside those a tiny one does not matter.
 */
export function holds(codec: CodecName, values: Float32Array, arrays: readonly Part[]): boolean {
  if (codec === "f32") return true;
  let hasTiny = false;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > MOST) return false;
    hasTiny ||= magnitude < NORMAL && magnitude > 0;
  }
  return codec === "int8" || !hasTiny || arrays.every(([start, end]) => holdsArray(values.subarray(start, end)));
}

function holdsArray(values: Float32Array): boolean {
  if (values.length > FEW && rootMeanSquare(values) >= NORMAL) return true;
  const table = halfValues();
  return values.every((value) => Math.abs(table[halfBits(value)]! - value) <= PRECISION * Math.abs(value));
}

function rootMeanSquare(values: Float32Array): number {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += values[i]! * values[i]!;
  return Math.sqrt(squares / values.length);
}
