// Computes a minibatch's loss and gradient with a program or a module, on one backend. Knows no shard and no socket.

import { defaultDevice, init, jit, numpy as np, type Device, type OwnedFunction } from "@jax-js/jax";

import { ProgramError } from "../errors";
import { sizeOf, type Program, type ValueType } from "../program";
import { batchArrays, keyArrays, offsetsOf, parameterArrays, parameterType, rowsType, valuesOf, type BatchData, type Floats } from "./arrays";
import { interpret } from "./interpret";
import { DerivedKeys, type Key } from "./keys";
import type { ModuleModel } from "./module";

export type { BatchData, Floats } from "./arrays";

/** Loss, then gradients; consumes what it is given. `keys` are uint32[n, 2]. */
type Compute = (parameters: np.Array[], batch: np.Array[], keys: np.Array[]) => np.Array[];

/** The keys that a model computes with, flat, made of the minibatch's. */
type KeysOf = (key: Key) => Key[];

/** The key of a step that is given none. */
const NO_KEY = new Uint32Array(2);

/** Makes `device` the one to compute on; throws ProgramError when the browser does not have that backend. */
export async function useDevice(device: Device): Promise<void> {
  const devices = await init(device);
  if (!devices.includes(device)) throw new ProgramError(`this browser has no ${device} backend`);
  // Constants are made while a model is traced, with nothing else to say where they belong.
  defaultDevice(device);
}

/** A compiled model. `step` runs it; `dispose` frees its constants. */
export class Executor {
  readonly #step: OwnedFunction<Compute>;
  /** Of the parameters that have elements. */
  readonly #offsets: readonly number[];

  private constructor(
    readonly parameterTypes: readonly ValueType[], readonly batchTypes: readonly ValueType[],
    compute: Compute, readonly keysOf: KeysOf, readonly device: Device,
  ) {
    const offsets = offsetsOf(parameterTypes);
    this.#offsets = offsets.filter((_, i) => sizeOf(parameterTypes[i]!.shape) > 0);
    this.#step = jit(compute);
  }

  /** Prepares `program` for `device`; throws ProgramError when the browser does not have that backend. */
  static async create(program: Program, device: Device): Promise<Executor> {
    await useDevice(device);
    const typesOf = (values: readonly number[]): ValueType[] => values.map((value) => program.values[value]!);
    const derived = new DerivedKeys(program);
    const compute: Compute = (parameters, batch, keys) => interpret(program, parameters, batch, keys);
    return new Executor(typesOf(program.parameters), typesOf(program.batch), compute, (key) => derived.of(key), device);
  }

  /** Prepares a module for `device`. Its functions are traced by the first step, which throws their ModelError. */
  static async ofModule(model: ModuleModel, device: Device): Promise<Executor> {
    await useDevice(device);
    const { parameters, batch } = model.layout;
    const batchTypes = batch.arrays.map((array) => rowsType(array, batch.rows));
    const compute: Compute = (arrays, rows, [key]) => model.gradient(arrays, rows, key!.reshape([2]));
    return new Executor(parameters.map(parameterType), batchTypes, compute, (key) => [key], device);
  }

  /**
   * Computes one gradient.
   *
   * @param parameters - the flat vector; only read
   * @param batch - one array for each of the model's batch inputs; only read
   * @param gradient - as long as `parameters`; overwritten
   * @param key - the minibatch's random key, two words
   * @returns the loss
   */
  async step(parameters: Floats, batch: readonly BatchData[], gradient: Floats, key = NO_KEY): Promise<number> {
    const { device } = this;
    const outputs = this.#step(
      parameterArrays(parameters, this.parameterTypes, device),
      batchArrays(batch, this.batchTypes, device),
      keyArrays(this.keysOf(key), device),
    );
    // Read together: on a GPU the copies overlap, and each `data` consumes its array.
    const [loss, ...gradients] = await Promise.all(outputs.map((output) => valuesOf(output, device)));
    gradients.forEach((values, i) => gradient.set(values, this.#offsets[i]!));
    return loss![0]!;
  }

  dispose(): void {
    this.#step.dispose();
  }
}
