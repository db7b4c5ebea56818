// Computes a minibatch's loss and gradient with a program, on one backend. Knows no shard and no socket.

import { defaultDevice, init, jit, numpy as np, type Device, type OwnedFunction } from "@jax-js/jax";

import { ProgramError } from "../errors";
import { sizeOf, type Program, type ValueType } from "../program";
import { interpret } from "./interpret";
import { heldAs } from "./rule";

/** A batch array as the executor takes it: integers as int32, booleans as 0 and 1. */
export type BatchData = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
export type Floats = Float32Array<ArrayBuffer>;

type Step = OwnedFunction<(parameters: np.Array[], batch: np.Array[]) => np.Array[]>;

/** Where each parameter lies in the flat vector. */
function offsetsOf(types: readonly ValueType[]): number[] {
  let end = 0;
  return types.map(({ shape }) => (end += sizeOf(shape)) - sizeOf(shape));
}

/** A compiled program. `step` runs it; `dispose` frees its constants. */
export class Executor {
  readonly #step: Step;
  readonly #parameterTypes: readonly ValueType[];
  readonly #batchTypes: readonly ValueType[];
  readonly #offsets: readonly number[];

  private constructor(program: Program, readonly device: Device) {
    this.#parameterTypes = program.parameters.map((value) => program.values[value]!);
    this.#batchTypes = program.batch.map((value) => program.values[value]!);
    this.#offsets = offsetsOf(this.#parameterTypes);
    this.#step = jit((parameters: np.Array[], batch: np.Array[]) => interpret(program, parameters, batch));
  }

  /** Prepares `program` for `device`; throws ProgramError when the browser does not have that backend. */
  static async create(program: Program, device: Device): Promise<Executor> {
    const devices = await init(device);
    if (!devices.includes(device)) throw new ProgramError(`this browser has no ${device} backend`);
    // Constants are made while the program is traced, with nothing else to say where they belong.
    defaultDevice(device);
    return new Executor(program, device);
  }

  /**
   * Computes one gradient.
   *
   * @param parameters - the flat vector; only read
   * @param batch - one array for each of the program's batch inputs; only read
   * @param gradient - as long as `parameters`; overwritten
   * @returns the loss
   */
  async step(parameters: Floats, batch: readonly BatchData[], gradient: Floats): Promise<number> {
    const outputs = this.#step(this.#parameterArrays(parameters), this.#batchArrays(batch));
    // Read together: on a GPU the copies overlap, and each `data` consumes its array.
    const [loss, ...gradients] = await Promise.all(outputs.map((output) => this.#read(output)));
    gradients.forEach((values, i) => gradient.set(values, this.#offsets[i]!));
    return loss![0]!;
  }

  dispose(): void {
    this.#step.dispose();
  }

  #read(output: np.Array): ArrayLike<number> | Promise<ArrayLike<number>> {
    // Synchronous on WebAssembly: the work is done on this thread anyhow, and a promise a kernel costs more than a kernel.
    return this.device === "wasm" ? output.dataSync() : output.data();
  }

  #parameterArrays(flat: Floats): np.Array[] {
    return this.#parameterTypes.map(({ shape }, i) => {
      const start = this.#offsets[i]!;
      return np.array(flat.subarray(start, start + sizeOf(shape)), { shape, device: this.device });
    });
  }

  #batchArrays(batch: readonly BatchData[]): np.Array[] {
    return this.#batchTypes.map(({ shape, dtype }, i) =>
      np.array(batch[i]!, { shape, dtype: heldAs(dtype), device: this.device }),
    );
  }
}
