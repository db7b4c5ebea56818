// The primitives that add, compare or multiply along axes, matrix products included.

import { DType, lax, numpy as np } from "@jax-js/jax";

import { integer, list } from "../schema";
import { binary, heldAs, unary, type Rule } from "./rule";

function reduction(reduce: (x: np.Array, axes: number[]) => np.Array): Rule {
  return unary((x, site) => {
    const axes = site.integers("axes");
    return axes.length === 0 ? x : reduce(x, axes);
  });
}

function extremum(find: typeof np.argmax): Rule {
  return unary((x, site) => {
    const axes = site.equation.options["axis"];
    const axis = typeof axes === "number" ? axes : site.integers("axis")[0]!;
    return find(x, axis).astype(heldAs(site.output.dtype));
  });
}

const pair = list(list(integer(0)), 2);

const dotGeneral: Rule = binary((x, y, site) => {
  const [lhsContractingDims = [], rhsContractingDims = []] = site.option("contract", pair);
  const [lhsBatchDims = [], rhsBatchDims = []] = site.option("batch", pair);
  return lax.dot(x, y, { lhsContractingDims, rhsContractingDims, lhsBatchDims, rhsBatchDims });
});

const ofIntegers = (reduce: (x: np.Array, axes: number[]) => np.Array): Rule =>
  reduction((x, axes) => reduce(x.astype(DType.Int32), axes).notEqual(0));

export const REDUCTIONS: Readonly<Record<string, Rule>> = {
  reduce_sum: reduction((x, axes) => np.sum(x, axes)),
  reduce_max: reduction((x, axes) => np.max(x, axes)),
  reduce_min: reduction((x, axes) => np.min(x, axes)),
  reduce_prod: reduction((x, axes) => np.prod(x, axes)),
  reduce_and: ofIntegers((x, axes) => np.min(x, axes)),
  reduce_or: ofIntegers((x, axes) => np.max(x, axes)),
  argmax: extremum(np.argmax),
  argmin: extremum(np.argmin),
  dot_general: dotGeneral,
};
