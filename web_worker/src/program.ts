// Reads a traced model (docs/program.md): its types and whether it is well formed. Executes nothing.

import { ProgramError, reasonOf } from "./errors";
import { integer, list, nullable, object, oneOf, optional, text, type Read, type Reader } from "./schema";

const dtype = oneOf("float32", "int32", "uint32", "int8", "uint8", "int16", "uint16", "bool");

/** A number, or one of the words for what JSON cannot write; true and false become 1 and 0. */
const scalar: Reader<number> = (value, path) => {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  const words: Record<string, number> = { inf: Infinity, "-inf": -Infinity, nan: NaN };
  const number = typeof value === "string" ? words[value] : undefined;
  if (number === undefined) throw new Error(`${path} is a number, "inf", "-inf" or "nan", got ${JSON.stringify(value)}`);
  return number;
};

const data: Reader<number | number[]> = (value, path) =>
  Array.isArray(value) ? list(scalar)(value, path) : scalar(value, path);

const record: Reader<Record<string, unknown>> = (value, path) => {
  if (typeof value !== "object" || value === null) throw new Error(`${path} is an object`);
  return { ...value };
};

const index = integer(0);
const valueType = object({ shape: list(index), dtype });
const equation = object({ primitive: text(), inputs: list(index), outputs: list(index), options: record });
const constant = object({ value: index, data });
const body = {
  format: integer(1, 1),
  values: list(valueType),
  parameters: list(index),
  batch: list(index),
  /** The minibatch's random key, uint32[2], for a loss that takes one. */
  key: optional(nullable(index), null),
  constants: list(constant),
  equations: list(equation),
};
const program = object({ ...body, loss: index, gradients: list(index) });
const forward = object({ ...body, outputs: list(object({ name: text(), value: index })) });

export type ValueType = Read<typeof valueType>;
export type Equation = Read<typeof equation>;
/** A loss and its gradients. */
export type Program = Read<typeof program>;
/** What a model says of rows, by name. */
export type Forward = Read<typeof forward>;

/** Elements of an array of this shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** The values that a program is for: loss and gradients, or its outputs. */
export function resultsOf(read: Program | Forward): number[] {
  return "outputs" in read ? read.outputs.map(({ value }) => value) : [read.loss, ...read.gradients];
}

/** Reads a program; throws ProgramError when it is not one, or when a value is used before it is written. */
export function readProgram(json: unknown): Program {
  try {
    const read = program(json, "");
    requireSingleAssignment(read);
    requireGradients(read);
    return read;
  } catch (error) {
    throw new ProgramError(`expected a program of docs/program.md: ${reasonOf(error)}`, { cause: error });
  }
}

/** Reads a forward program; throws as `readProgram` does. */
export function readForward(json: unknown): Forward {
  try {
    const read = forward(json, "");
    requireSingleAssignment(read);
    return read;
  } catch (error) {
    throw new ProgramError(`expected a forward program of docs/program.md: ${reasonOf(error)}`, { cause: error });
  }
}

function requireSingleAssignment(read: Program | Forward): void {
  const written = new Set<number>();
  const write = (value: number): void => {
    if (value >= read.values.length) throw new Error(`value ${value} of ${read.values.length}`);
    if (written.has(value)) throw new Error(`value ${value} is written twice`);
    written.add(value);
  };
  const use = (value: number): void => {
    if (!written.has(value)) throw new Error(`value ${value} is used before it is written`);
  };
  for (const value of [...read.parameters, ...read.batch, ...(read.key === null ? [] : [read.key])]) write(value);
  for (const { value } of read.constants) write(value);
  for (const { inputs, outputs } of read.equations) {
    inputs.forEach(use);
    outputs.forEach(write);
  }
  resultsOf(read).forEach(use);
}

function requireGradients(read: Program): void {
  if (read.gradients.length !== read.parameters.length) {
    throw new Error(`${read.parameters.length} parameters need as many gradients, got ${read.gradients.length}`);
  }
  read.gradients.forEach((gradient, i) => {
    const expected = read.values[read.parameters[i]!]!.shape.join("x");
    const got = read.values[gradient]!.shape.join("x");
    if (expected !== got) throw new Error(`gradient ${i} has the shape ${got}, its parameter ${expected}`);
  });
}
