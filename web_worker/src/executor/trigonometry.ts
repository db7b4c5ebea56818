// Sine and cosine of single precision on GPUs, whose own may err by 2^-11 (WGSL) or by anything (GLSL).

import { defaultDevice, numpy as np } from "@jax-js/jax";

import { settled } from "./computed";

/** pi / 2 in three parts of which the first two have few digits: products with small integers are exact (Cody and Waite 1980). */
const HALF_PI = [1.5703125, 4.837512969970703e-4, 7.549789948768648e-8] as const;

/** x = quarter * pi/2 + rest, |rest| <= pi/4. Consumes x. */
function reduced(x: np.Array): { quarter: np.Array; rest: np.Array } {
  const quarter = settled(np.floor(x.ref.mul(2 / Math.PI).add(0.5)));
  const rest = settled(HALF_PI.reduce((left, part) => left.sub(quarter.ref.mul(part)), x));
  return { quarter, rest };
}

/** The sine of `x` moved on by so many quarters of the circle. The polynomials are those of Cephes (sinf, cosf). */
function sineAfter(x: np.Array, quarters: number): np.Array {
  const { quarter, rest } = reduced(x);
  const square = rest.ref.mul(rest.ref);
  const inner = square.ref.mul(-1.9515295891e-4).add(8.3321608736e-3).mul(square.ref).add(-1.6666654611e-1);
  const sine = inner.mul(square.ref).mul(rest.ref).add(rest);
  const outer = square.ref.mul(2.443315711809948e-5).add(-1.388731625493765e-3).mul(square.ref).add(4.166664568298827e-2);
  const cosine = outer.mul(square.ref).mul(square.ref).add(square.mul(-0.5)).add(1);
  const turned = quarter.add(quarters);
  const half = np.floor(turned.ref.mul(0.5));
  const isOdd = turned.sub(half.ref.mul(2)).greater(0.5);
  const isNegative = half.ref.sub(np.floor(half.mul(0.5)).mul(2)).greater(0.5);
  const value = settled(np.where(isOdd, cosine, sine));
  return np.where(isNegative, value.ref.neg(), value);
}

const isImprecise = (): boolean => defaultDevice() !== "wasm";

export const sin = (x: np.Array): np.Array => (isImprecise() ? sineAfter(x, 0) : np.sin(x));
export const cos = (x: np.Array): np.Array => (isImprecise() ? sineAfter(x, 1) : np.cos(x));
export const tan = (x: np.Array): np.Array => (isImprecise() ? sineAfter(x.ref, 0).div(sineAfter(x, 1)) : np.tan(x));
