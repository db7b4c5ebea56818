// The primitives that move elements about without computing with them.

import { DType, numpy as np } from "@jax-js/jax";

import { sizeOf } from "../program";
import { integer } from "../schema";
import { ELEMENTWISE } from "./elementwise";
import { asNumbers, computed, cut } from "./computed";
import { heldAs, input, unary, type Rule, type Site } from "./rule";

const ones = (length: number): number[] => new Array<number>(length).fill(1);

const reshape: Rule = unary((x, { output }) => x.reshape(output.shape));

/** Elements from which on computing a broadcast array once is worth a kernel of its own. */
const LARGE = 65_536;

const broadcast: Rule = unary((x, site) => {
  const { shape } = site.output;
  const isFused = ELEMENTWISE[site.producers[0] ?? ""] !== undefined;
  const source = isFused && x.ndim > 0 && sizeOf(shape) >= LARGE ? computed(x) : x;
  const aligned = ones(shape.length);
  site.integers("broadcast_dimensions").forEach((dimension, axis) => (aligned[dimension] = source.shape[axis]!));
  return np.broadcastTo(source.reshape(aligned), shape);
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

const concatenate: Rule = (inputs, site) => {
  const axis = site.option("dimension", integer(0));
  if (site.output.dtype !== "bool") return np.concatenate(inputs, axis);
  return np.concatenate(inputs.map((x) => x.astype(DType.Int32)), axis).notEqual(0);
};

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

/** Where, in one row of `x`, each element of its windows lies. */
function windowIndices(site: Site, space: readonly number[], last: number): Int32Array<ArrayBuffer> {
  const [counts, strides, window, dilations] = ["counts", "strides", "window", "dilations"].map((name) => site.integers(name));
  // One list of offsets for each axis of the result, outermost first; an element lies at the sum of one of each.
  const steps = [...space.map((_, axis) => space.slice(axis + 1).reduce((product, n) => product * n, last))];
  const ramp = (count: number, step: number): number[] => Array.from({ length: count }, (_, i) => i * step);
  const offsets = [
    ...steps.map((step, axis) => ramp(counts![axis]!, strides![axis]! * step)),
    ...steps.map((step, axis) => ramp(window![axis]!, dilations![axis]! * step)),
    ramp(last, 1),
  ];
  return Int32Array.from(offsets.reduce((starts, axis) => starts.flatMap((start) => axis.map((offset) => start + offset)), [0]));
}

/** A gather with constant indices: on WebAssembly several times faster than a view, which divides for every axis. */
const patches: Rule = unary((x, site) => {
  const [lead, ...space] = x.shape;
  const last = space.pop()!;
  const row = space.reduce((product, n) => product * n, last);
  const indices = np.array(windowIndices(site, space, last), { dtype: DType.Int32 });
  const gathered = asNumbers(x, (numbers) => numbers.reshape([lead!, row]).slice([], indices));
  return gathered.reshape(site.output.shape);
});

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
  patches,
  rev: unary((x, site) => np.flip(x, site.integers("dimensions"))),
};
