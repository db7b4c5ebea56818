// Runs a program's equations on jax-js arrays, with every array consumed exactly once. Uploads and compiles nothing.

import { defaultDevice, numpy as np } from "@jax-js/jax";

import { ProgramError, reasonOf } from "../errors";
import { resultsOf, sizeOf, type Equation, type Forward, type Program, type ValueType } from "../program";
import { ELEMENTWISE } from "./elementwise";
import { draws } from "./keys";
import { RANDOM } from "./random";
import { REDUCTIONS } from "./reductions";
import { heldAs, Site, type Rule } from "./rule";
import { ShaderSizes } from "./shader-size";
import { SHAPING } from "./shaping";

const RULES: Readonly<Record<string, Rule>> = { ...ELEMENTWISE, ...SHAPING, ...REDUCTIONS, ...RANDOM };

/** The primitives that this executor has. */
export const PRIMITIVES: readonly string[] = Object.keys(RULES);

/** For each value how often it is read: by equations, and as a result. */
export function useCounts(program: Program | Forward): number[] {
  const counts = new Array<number>(program.values.length).fill(0);
  const read = program.equations.filter((equation) => !draws(equation)).flatMap(({ inputs }) => inputs);
  const reads = [...read, ...resultsOf(program)];
  for (const value of reads) counts[value]! += 1;
  return counts;
}

/** The arrays that are alive while a program runs. Each read hands out one of the owners that `write` took. */
class Environment {
  readonly #arrays = new Map<number, np.Array>();

  constructor(readonly counts: readonly number[]) {}

  write(value: number, array: np.Array): void {
    const count = this.counts[value]!;
    if (count === 0) {
      array.dispose();
      return;
    }
    for (let owner = 1; owner < count; owner++) void array.ref;
    this.#arrays.set(value, array);
  }

  read(value: number): np.Array {
    return this.#arrays.get(value)!;
  }
}

function constantArray(data: number | number[], type: ValueType): np.Array {
  const dtype = heldAs(type.dtype);
  if (typeof data === "number") return np.broadcastTo(np.array(data, { dtype }), type.shape);
  const values = dtype === "float32" ? new Float32Array(data) : dtype === "uint32" ? new Uint32Array(data) : new Int32Array(data);
  return np.array(values, { shape: type.shape, dtype });
}

function requireShape(array: np.Array, equation: Equation, type: ValueType): void {
  if (array.shape.join() === type.shape.join() && array.dtype === heldAs(type.dtype)) return;
  throw new ProgramError(
    `${equation.primitive} should give ${type.dtype}[${type.shape.join()}], got ${array.dtype}[${array.shape.join()}]`,
  );
}

function execute(equation: Equation, inputs: np.Array[], environment: Environment, site: Site, sizes: ShaderSizes): void {
  const rule = RULES[equation.primitive];
  if (!rule) throw new ProgramError(`this executor has no primitive "${equation.primitive}"`);
  try {
    const array = rule(sizes.inputs(equation, inputs), site);
    requireShape(array, equation, site.output);
    environment.write(equation.outputs[0]!, sizes.output(equation, array));
  } catch (error) {
    throw new ProgramError(`${equation.primitive}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Returns the results that have elements. Consumes its arrays; `keys` has one for each equation that draws, in their order. */
export function interpret(program: Program | Forward, parameters: np.Array[], batch: np.Array[], keys: np.Array[] = []): np.Array[] {
  const environment = new Environment(useCounts(program));
  const uniforms = new Map<number, number>();
  const producers = new Map<number, string>();
  const drawn = [...keys];
  const sizes = new ShaderSizes(defaultDevice() === "webgl");
  program.parameters.forEach((value, i) => environment.write(value, parameters[i]!));
  program.batch.forEach((value, i) => environment.write(value, batch[i]!));
  for (const { value, data } of program.constants) {
    if (sizeOf(program.values[value]!.shape) === 0) continue;
    if (typeof data === "number") uniforms.set(value, data);
    environment.write(value, constantArray(data, program.values[value]!));
  }
  for (const equation of program.equations) {
    const types = equation.inputs.map((value) => program.values[value]!);
    const known = equation.inputs.map((value) => uniforms.get(value) ?? null);
    const made = equation.inputs.map((value) => producers.get(value) ?? null);
    const inputs = draws(equation) ? [drawn.shift()!] : equation.inputs.map((value) => environment.read(value));
    const site = new Site(equation, types, program.values[equation.outputs[0]!]!, known, made);
    execute(equation, inputs, environment, site, sizes);
    producers.set(equation.outputs[0]!, equation.primitive);
  }
  const results = resultsOf(program).filter((value) => sizeOf(program.values[value]!.shape) > 0);
  return results.map((value) => environment.read(value));
}
