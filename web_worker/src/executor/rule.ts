// What a rule is: how one primitive of docs/program.md is said in jax-js. Lists no primitive.

import { DType, numpy as np } from "@jax-js/jax";

import { ProgramError } from "../errors";
import type { Equation, ValueType } from "../program";
import { integer, list, type Reader } from "../schema";

/** What a rule knows of its equation, besides the arrays. */
export class Site {
  constructor(
    readonly equation: Equation,
    readonly inputTypes: readonly ValueType[],
    readonly output: ValueType,
    /** For each input its value, when it is a constant of equal elements; null otherwise. */
    readonly uniforms: readonly (number | null)[],
    /** For each input the primitive that computed it; null for inputs of the program and constants. */
    readonly producers: readonly (string | null)[],
  ) {}

  /** One field of `options`, read and checked. */
  option<T>(name: string, reader: Reader<T>): T {
    return reader(this.equation.options[name], `${this.equation.primitive}.${name}`);
  }

  integers(name: string): number[] {
    return this.option(name, list(integer()));
  }
}

/** Computes an equation's output. It consumes every input exactly once: jax-js counts owners. */
export type Rule = (inputs: np.Array[], site: Site) => np.Array;

const HELD: Record<ValueType["dtype"], DType> = {
  float32: DType.Float32,
  int32: DType.Int32,
  uint32: DType.Uint32,
  bool: DType.Bool,
  // jax-js has no narrow integers; the tracer admits only uses for which the wider type gives the same values.
  int8: DType.Int32,
  uint8: DType.Int32,
  int16: DType.Int32,
  uint16: DType.Int32,
};

/** The jax-js type that holds a value of this type. */
export function heldAs(dtype: ValueType["dtype"]): DType {
  return HELD[dtype];
}

/** The given input; a ProgramError says which equation lacks it. */
export function input(inputs: readonly np.Array[], index: number, site: Site): np.Array {
  const array = inputs[index];
  if (!array) throw new ProgramError(`${site.equation.primitive} needs ${index + 1} inputs, got ${inputs.length}`);
  return array;
}

/** A rule of one array. */
export function unary(compute: (x: np.Array, site: Site) => np.Array): Rule {
  return (inputs, site) => compute(input(inputs, 0, site), site);
}

/** A rule of two arrays. */
export function binary(compute: (x: np.Array, y: np.Array, site: Site) => np.Array): Rule {
  return (inputs, site) => compute(input(inputs, 0, site), input(inputs, 1, site), site);
}
