// The primitives that move elements about without computing with them.

import { DType, numpy as np } from "@jax-js/jax";

import { integer } from "../schema";
import { heldAs, input, unary, type Rule, type Site } from "./rule";

const ones = (length: number): number[] => new Array<number>(length).fill(1);

const reshape: Rule = unary((x, { output }) => x.reshape(output.shape));

const broadcast: Rule = unary((x, site) => {
  const { shape } = site.output;
  const aligned = ones(shape.length);
  site.integers("broadcast_dimensions").forEach((dimension, axis) => (aligned[dimension] = x.shape[axis]!));
  return np.broadcastTo(x.reshape(aligned), shape);
});

const iota: Rule = (_inputs, site) => {
  const { shape, dtype } = site.output;
  const dimension = site.option("dimension", integer(0));
  const length = shape[dimension]!;
  const aligned = ones(shape.length);
  aligned[dimension] = length;
  const count = np.arange(0, length, 1, { dtype: DType.Int32 }).reshape(aligned);
  return np.broadcastTo(count.astype(heldAs(dtype)), shape);
};

// jax-js pads and concatenates by adding zeros, which booleans do not: they pass as integers.
function asNumbers(x: np.Array, move: (numbers: np.Array) => np.Array): np.Array {
  return x.dtype === DType.Bool ? move(x.astype(DType.Int32)).notEqual(0) : move(x);
}

const concatenate: Rule = (inputs, site) => {
  const axis = site.option("dimension", integer(0));
  if (site.output.dtype !== "bool") return np.concatenate(inputs, axis);
  return np.concatenate(inputs.map((x) => x.astype(DType.Int32)), axis).notEqual(0);
};

function cut(x: np.Array, start: readonly number[], limit: readonly number[]): np.Array {
  const isWhole = start.every((first, axis) => first === 0 && limit[axis] === x.shape[axis]);
  return isWhole ? x : x.slice(...start.map((first, axis): [number, number] => [first, limit[axis]!]));
}

/** Every `stride`-th element of an axis: fill up to whole groups of `stride`, then take each group's first. */
function stride(x: np.Array, axis: number, step: number): np.Array {
  const length = x.shape[axis]!;
  const groups = Math.ceil(length / step);
  const filled = asNumbers(x, (numbers) => np.pad(numbers, { [axis]: [0, groups * step - length] }));
  const [before, after] = [filled.shape.slice(0, axis), filled.shape.slice(axis + 1)];
  const grouped = filled.reshape([...before, groups, step, ...after]);
  const whole = (): [] => [];
  return grouped.slice(...before.map(whole), [], 0, ...after.map(whole));
}

const slice: Rule = unary((x, site) => {
  const steps = site.equation.options["strides"] == null ? ones(x.ndim) : site.integers("strides");
  const part = cut(x, site.integers("start"), site.integers("limit"));
  return steps.reduce((y, step, axis) => (step === 1 ? y : stride(y, axis, step)), part);
});

/** Puts `gap` zeros between neighbours of an axis: the inverse of `stride`. */
function spread(x: np.Array, axis: number, gap: number): np.Array {
  const length = x.shape[axis]!;
  if (gap === 0 || length === 0) return x;
  const [before, after] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const grouped = np.pad(x.reshape([...before, length, 1, ...after]), { [axis + 1]: [0, gap] });
  const flat = grouped.reshape([...before, length * (1 + gap), ...after]);
  const limit = [...before, length * (1 + gap) - gap, ...after];
  return cut(flat, limit.map(() => 0), limit);
}

function padWithZeros(x: np.Array, low: number[], high: number[], interior: number[]): np.Array {
  const spaced = interior.reduce((y, gap, axis) => spread(y, axis, gap), x);
  const start = low.map((before) => Math.max(0, -before));
  const limit = high.map((after, axis) => spaced.shape[axis]! - Math.max(0, -after));
  const widths = low.map((before, axis): [number, number] => [Math.max(0, before), Math.max(0, high[axis]!)]);
  const part = cut(spaced, start, limit);
  // A list of one pair would mean "on every axis", which is the same here: there is one axis then.
  return widths.some(([before, after]) => before + after > 0) ? np.pad(part, widths) : part;
}

function pad(x: np.Array, value: np.Array, site: Site): np.Array {
  const edges = [site.integers("low"), site.integers("high"), site.integers("interior")] as const;
  const move = (numbers: np.Array): np.Array => padWithZeros(numbers, ...edges);
  if (site.uniforms[1] === 0) {
    value.dispose();
    return asNumbers(x, move);
  }
  // Zeros can only be told from padding by a mask that is padded alike; x may hold infinities, so no arithmetic helps.
  const inside = move(np.full(x.shape, 1, { dtype: DType.Int32 })).notEqual(0);
  return np.where(inside, asNumbers(x, move), value);
}

export const SHAPING: Readonly<Record<string, Rule>> = {
  broadcast_in_dim: broadcast,
  reshape,
  squeeze: reshape,
  expand_dims: reshape,
  transpose: unary((x, site) => np.transpose(x, site.integers("permutation"))),
  iota,
  concatenate,
  slice,
  pad: (inputs, site) => pad(input(inputs, 0, site), input(inputs, 1, site), site),
  rev: unary((x, site) => np.flip(x, site.integers("dimensions"))),
};
