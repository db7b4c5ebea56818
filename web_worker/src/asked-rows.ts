// Reads the rows of which a page asks what the model says. Computes nothing.

import { PredictionError } from "./errors";
import type { BatchData } from "./executor/arrays";
import { sizeOf } from "./program";
import type { BatchArray, DType } from "./protocol";

/** Numbers, flat or nested. */
export type Numbers = number | boolean | ArrayLike<number> | readonly Numbers[];

/** Rows by the names of the job's arrays: one row, or several one after the other. */
export type AskedRows = Readonly<Record<string, Numbers>>;

/** The rows of each of the job's arrays; null for those that are not read and were not given. */
export interface ReadRows {
  readonly rows: number;
  readonly batch: readonly (BatchData | null)[];
}

const RANGES: Readonly<Record<Exclude<DType, "float32">, readonly [number, number]>> = {
  bool: [0, 1], int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767], uint16: [0, 65535],
  int32: [-(2 ** 31), 2 ** 31 - 1], uint32: [0, 2 ** 32 - 1],
};

const wrong = (message: string): PredictionError => new PredictionError("input", message);

const described = ({ name, dtype, shape }: BatchArray): string => `${name} (${dtype}${shape.length > 0 ? `, ${shape.join(" x ")}` : ""} a row)`;

/**
 * Reads `asked` by the job's arrays; `reads` says which of them the model reads. Throws PredictionError with what was expected
 * and what came.
 */
export function readRows(asked: unknown, arrays: readonly BatchArray[], reads: readonly boolean[]): ReadRows {
  const given = named(asked, arrays.filter((_, i) => reads[i]), arrays);
  const counts = new Map<string, number>();
  const batch = arrays.map((array, i) => {
    if (!reads[i] || !Object.hasOwn(given, array.name)) return null;
    const data = read(given[array.name], array);
    const size = sizeOf(array.shape);
    if (size > 0) counts.set(array.name, countOf(data.length, size, array));
    return data;
  });
  const [rows = 1, ...others] = counts.values();
  if (others.some((count) => count !== rows)) {
    const got = [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
    throw wrong(`predict expects as many rows of each array, got ${got}`);
  }
  return { rows, batch };
}

function named(asked: unknown, wanted: readonly BatchArray[], arrays: readonly BatchArray[]): Readonly<Record<string, unknown>> {
  const isRecord = typeof asked === "object" && asked !== null && !Array.isArray(asked) && !ArrayBuffer.isView(asked);
  const names = isRecord ? Object.keys(asked) : [];
  const isWhole = wanted.every(({ name }) => names.includes(name));
  if (isRecord && isWhole && names.every((name) => arrays.some((array) => array.name === name))) return asked as Record<string, unknown>;
  const got = isRecord ? names.join(", ") || "none" : Array.isArray(asked) ? "a list" : asked === null ? "null" : typeof asked;
  throw wrong(`predict expects arrays by name, ${wanted.map(described).join(", ") || "none"}, got ${got}`);
}

function countOf(length: number, size: number, array: BatchArray): number {
  if (length > 0 && length % size === 0) return length / size;
  throw wrong(`predict expects ${described(array)}: ${size} numbers for one row, or as many for each, got ${length}`);
}

function read(given: unknown, array: BatchArray): BatchData {
  const { dtype } = array;
  const numbers = flat(given, array);
  if (dtype === "float32") return Float32Array.from(numbers);
  const [least, most] = RANGES[dtype];
  const odd = Array.prototype.findIndex.call(numbers, (number: number) => !Number.isInteger(number) || number < least || number > most);
  if (odd >= 0) throw wrong(`predict expects whole numbers from ${least} to ${most} for ${described(array)}, got ${numbers[odd]} at ${odd}`);
  return dtype === "uint32" ? Uint32Array.from(numbers) : Int32Array.from(numbers);
}

function flat(given: unknown, array: BatchArray): ArrayLike<number> {
  if (ArrayBuffer.isView(given) && !(given instanceof DataView)) {
    const numbers = given as unknown as ArrayLike<number | bigint>;
    if (typeof numbers[0] !== "bigint") return numbers as ArrayLike<number>;
  }
  const list: unknown[] = Array.isArray(given) ? given.flat(Infinity) : [given];
  const views = list.flatMap((each) => (ArrayBuffer.isView(each) && !(each instanceof DataView) ? [...(each as Float32Array)] : [each]));
  return views.map((each) => {
    if (typeof each === "number" || typeof each === "boolean") return Number(each);
    throw wrong(`predict expects numbers for ${described(array)}, got ${each === null ? "null" : typeof each}`);
  });
}
