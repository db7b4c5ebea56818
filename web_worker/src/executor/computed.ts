// Says when jax-js computes an array, which it otherwise fuses into whatever reads it. Changes no value.

import { defaultDevice, DType, numpy as np } from "@jax-js/jax";

/** jax-js pads and concatenates by adding zeros, which booleans do not: they pass as integers. */
export function asNumbers(x: np.Array, move: (numbers: np.Array) => np.Array): np.Array {
  return x.dtype === DType.Bool ? move(x.astype(DType.Int32)).notEqual(0) : move(x);
}

/** A slice of every axis. */
export function cut(x: np.Array, start: readonly number[], limit: readonly number[]): np.Array {
  const isWhole = start.every((first, axis) => first === 0 && limit[axis] === x.shape[axis]);
  return isWhole ? x : x.slice(...start.map((first, axis): [number, number] => [first, limit[axis]!]));
}

/**
 * Has jax-js compute `x` before what reads it: it fuses elementwise operations into their reader, and a broadcast reads each
 * element many times. jax-js computes what it pads; the padding is cut off again, which costs nothing.
 */
export function computed(x: np.Array): np.Array {
  const shape = x.ndim === 0 ? [1] : x.shape;
  const padded = asNumbers(x.reshape(shape), (numbers) => np.pad(numbers, { 0: [0, 1] }));
  return cut(padded, shape.map(() => 0), shape).reshape(x.shape);
}

/**
 * `x`, computed where the fusion costs more than a kernel: on WebGL jax-js writes an expression out anew wherever it is read, so
 * that one of shared parts grows exponentially. The gradient of a GELU became 41 KB of shader, at which drivers give up.
 */
export function settled(x: np.Array): np.Array {
  return defaultDevice() === "webgl" ? computed(x) : x;
}
