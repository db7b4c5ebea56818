// The primitive that draws random bits.

import { numpy as np, random, vmap } from "@jax-js/jax";

import { sizeOf } from "../program";
import { unary, type Rule } from "./rule";

/** jax-js counts as JAX does: the same keys, of shape [n, 2], give the same bits. */
const randomBits: Rule = unary((keys, { output }) => {
  const each = sizeOf(output.shape) / keys.shape[0]!;
  return vmap((key: np.Array) => random.bits(key, [each]))(keys).reshape(output.shape);
});

export const RANDOM: Readonly<Record<string, Rule>> = { random_bits: randomBits };
