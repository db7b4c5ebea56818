// Computes what a model says of rows with a forward program, on one backend. Knows no socket and no page.

import { jit, numpy as np, type Device, type OwnedFunction } from "@jax-js/jax";

import { ProgramError } from "../errors";
import { sizeOf, type Forward, type ValueType } from "../program";
import { batchArrays, keyArrays, parameterArrays, valuesOf, type BatchData, type Floats } from "./arrays";
import { useDevice } from "./executor";
import { interpret, useCounts } from "./interpret";
import { DerivedKeys } from "./keys";

/** What a model says of some rows: row-major, the rows along the first axis. Truth values are 0 and 1. */
export interface Result {
  readonly shape: readonly number[];
  readonly data: BatchData;
}

/** A forward program takes no key; keys of its own are derived from constants. */
const NO_KEY = new Uint32Array(2);

const arrayFor = ({ dtype }: ValueType, size: number): BatchData =>
  dtype === "float32" ? new Float32Array(size) : dtype === "uint32" ? new Uint32Array(size) : new Int32Array(size);

const typesOf = (program: Forward, values: readonly number[]): ValueType[] => values.map((value) => program.values[value]!);

/** A compiled forward program. `dispose` frees its constants. */
export class Predictor {
  /** For each batch input whether the program reads it. */
  readonly reads: readonly boolean[];
  /** The rows that one call takes. */
  readonly #rows: number;
  readonly #call: OwnedFunction<(parameters: np.Array[], batch: np.Array[], keys: np.Array[]) => np.Array[]>;
  readonly #parameterTypes: readonly ValueType[];
  readonly #batchTypes: readonly ValueType[];
  readonly #outputTypes: readonly ValueType[];
  readonly #keys: DerivedKeys;

  private constructor(readonly program: Forward, readonly device: Device) {
    const counts = useCounts(program);
    this.reads = program.batch.map((value) => counts[value]! > 0);
    this.#parameterTypes = typesOf(program, program.parameters);
    this.#batchTypes = typesOf(program, program.batch);
    this.#outputTypes = typesOf(program, program.outputs.map(({ value }) => value));
    this.#rows = rowsOf(this.#outputTypes);
    this.#keys = new DerivedKeys(program);
    this.#call = jit((parameters, batch, keys) => interpret(program, parameters, batch, keys));
  }

  /** Prepares `program` for `device`; throws ProgramError when it gives no rows, or the browser does not have that backend. */
  static async create(program: Forward, device: Device): Promise<Predictor> {
    await useDevice(device);
    return new Predictor(program, device);
  }

  /**
   * What the model says.
   *
   * @param parameters - the flat vector; only read
   * @param batch - for each batch input that the program reads its `rows` rows; of others it does not matter
   * @param pause - called between two calls of the program, which takes so many rows at a time
   */
  async predict(
    parameters: Floats, batch: readonly (BatchData | null)[], rows: number, pause: () => Promise<void>,
  ): Promise<Record<string, Result>> {
    const results = this.#outputTypes.map((type) => {
      const shape = [rows, ...type.shape.slice(1)];
      return { shape, data: arrayFor(type, sizeOf(shape)) };
    });
    for (let start = 0; start < rows; start += this.#rows) {
      if (start > 0) await pause();
      await this.#run(parameters, batch.map((data, i) => this.#part(data, i, start, rows)), results, start);
    }
    return Object.fromEntries(this.program.outputs.map(({ name }, i) => [name, results[i]!]));
  }

  dispose(): void {
    this.#call.dispose();
  }

  async #run(parameters: Floats, batch: readonly BatchData[], results: readonly Result[], start: number): Promise<void> {
    const { device } = this;
    const outputs = this.#call(
      parameterArrays(parameters, this.#parameterTypes, device),
      batchArrays(batch, this.#batchTypes, device),
      keyArrays(this.#keys.of(NO_KEY), device),
    );
    const found = await Promise.all(outputs.map((output) => valuesOf(output, device)));
    // Those without elements are not computed.
    results.filter(({ data }) => data.length > 0).forEach(({ shape, data }, i) => {
      const size = sizeOf(shape.slice(1));
      const wanted = Math.min(this.#rows, shape[0]! - start) * size;
      for (let k = 0; k < wanted; k++) data[start * size + k] = found[i]![k]!;
    });
  }

  /** The rows from `start` on that one call takes; behind the last one its own values again, so that nothing unlikely is computed. */
  #part(data: BatchData | null, index: number, start: number, rows: number): BatchData {
    const type = this.#batchTypes[index]!;
    const part = arrayFor(type, sizeOf(type.shape));
    if (!data) return part;
    const size = part.length / this.#rows;
    for (let row = 0; row < this.#rows; row++) {
      const from = Math.min(start + row, rows - 1) * size;
      part.set(data.subarray(from, from + size), row * size);
    }
    return part;
  }
}

function rowsOf(outputs: readonly ValueType[]): number {
  const [first, ...others] = outputs.map(({ shape }) => shape[0]);
  if (first === undefined || first === 0 || others.some((rows) => rows !== first)) {
    const got = outputs.map(({ shape }) => `[${shape.join()}]`).join(", ") || "none";
    throw new ProgramError(`a forward program expects outputs with the same rows along the first axis, got ${got}`);
  }
  return first;
}
