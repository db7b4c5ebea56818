// Keeps the shaders small that jax-js writes for WebGL: see `settled`. Knows no rule.

import type { numpy as np } from "@jax-js/jax";

import type { Equation } from "../program";
import { computed } from "./computed";

/** How many operations a value's expression may have before it is computed. Drivers compile some hundred of them at once well. */
const LARGEST = 16;

/** Primitives that are made of many operations, most of which read their input. */
const COMPOSED = new Set([
  "tanh", "sinh", "cosh", "expm1", "log1p", "logistic", "pow", "integer_pow", "erf", "erfc", "erf_inv", "atan2", "sin", "cos", "tan", "cbrt",
  "random_bits",
]);

/** The size of each value's expression in a program, in operations; on other backends than WebGL expressions may grow. */
export class ShaderSizes {
  readonly #sizes = new Map<number, number>();

  constructor(readonly isBounded: boolean) {}

  /** The inputs of `equation`, computed where it would repeat what they are made of. */
  inputs(equation: Equation, arrays: np.Array[]): np.Array[] {
    if (!this.isBounded || !COMPOSED.has(equation.primitive)) return arrays;
    return arrays.map((array, i) => (this.#sizeOf(equation.inputs[i]!) > 1 ? computed(array) : array));
  }

  /** What `equation` gives; if its expression is large, computed. */
  output(equation: Equation, array: np.Array): np.Array {
    if (!this.isBounded) return array;
    const size = 1 + equation.inputs.reduce((sum, value) => sum + this.#sizeOf(value), 0);
    const isLarge = size > LARGEST || COMPOSED.has(equation.primitive);
    this.#sizes.set(equation.outputs[0]!, isLarge ? 1 : size);
    return isLarge ? computed(array) : array;
  }

  #sizeOf(value: number): number {
    return this.#sizes.get(value) ?? 1;
  }
}
