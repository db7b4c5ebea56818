// Brings values to a backend: cuts the flat vector into parameters, lays out a batch. Computes nothing.

import { numpy as np, type Device } from "@jax-js/jax";

import { sizeOf, type ValueType } from "../program";
import type { BatchArray, ParameterArray } from "../protocol";
import { heldAs } from "./rule";

/** A batch array as the executor takes it: integers as int32, booleans as 0 and 1. */
export type BatchData = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
export type Floats = Float32Array<ArrayBuffer>;

/** Where each parameter lies in the flat vector. */
export function offsetsOf(types: readonly ValueType[]): number[] {
  let end = 0;
  return types.map(({ shape }) => (end += sizeOf(shape)) - sizeOf(shape));
}

/** jax-js has no arrays without elements, and programs read none: a number stands in. */
const nothing = (device: Device): np.Array => np.array(0, { device });

/** The parameters of a flat vector; the caller owns them. */
export function parameterArrays(flat: Floats, types: readonly ValueType[], device: Device): np.Array[] {
  const offsets = offsetsOf(types);
  return types.map(({ shape }, i) => {
    const size = sizeOf(shape);
    return size === 0 ? nothing(device) : np.array(flat.subarray(offsets[i]!, offsets[i]! + size), { shape, device });
  });
}

/** The arrays of a batch; the caller owns them. */
export function batchArrays(batch: readonly BatchData[], types: readonly ValueType[], device: Device): np.Array[] {
  return types.map(({ shape, dtype }, i) =>
    sizeOf(shape) === 0 ? nothing(device) : np.array(batch[i]!, { shape, dtype: heldAs(dtype), device }));
}

/** A random key of two words; the caller owns it. */
export function keyArray(key: Uint32Array<ArrayBuffer>, device: Device): np.Array {
  return np.array(key, { shape: [2], dtype: np.uint32, device });
}

/** Random keys, each array uint32[n, 2]; the caller owns them. */
export function keyArrays(keys: readonly Uint32Array<ArrayBuffer>[], device: Device): np.Array[] {
  return keys.map((words) => np.array(words, { shape: [words.length / 2, 2], dtype: np.uint32, device }));
}

/** What an array holds; consumes it. */
export function valuesOf(array: np.Array, device: Device): ArrayLike<number> | Promise<ArrayLike<number>> {
  // Synchronous on WebAssembly: the work is done on this thread anyhow, and a promise a kernel costs more than a kernel.
  return device === "wasm" ? array.dataSync() : array.data();
}

export function parameterType({ shape }: Pick<ParameterArray, "shape">): ValueType {
  return { shape, dtype: "float32" };
}

/** The type of `rows` rows of a batch array. */
export function rowsType({ shape, dtype }: BatchArray, rows: number): ValueType {
  return { shape: [rows, ...shape], dtype };
}
