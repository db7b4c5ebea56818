// Runs programs in a browser for tests and benchmarks in Python: bundled for the browser, it sets globals on its page.

import type { Device } from "@jax-js/jax";

import { Executor, type BatchData, type Floats } from "../src/executor/executor";
import { readProgram, sizeOf, type Program } from "../src/program";

/** One array's values, flat, row-major; booleans as 0 and 1. */
type Values = readonly number[];

interface Gradient { readonly loss: number; readonly gradients: number[][] }
interface Timing { readonly firstMilliseconds: number; readonly medianMilliseconds: number; readonly fastestMilliseconds: number }

function flatten(arrays: readonly Values[]): Floats {
  return Float32Array.from(arrays.flat());
}

function held(values: Values, dtype: Program["values"][number]["dtype"]): BatchData {
  if (dtype === "float32") return Float32Array.from(values);
  return dtype === "uint32" ? Uint32Array.from(values) : Int32Array.from(values);
}

function cut(flat: Floats, program: Program): number[][] {
  let end = 0;
  return program.parameters.map((value) => {
    const size = sizeOf(program.values[value]!.shape);
    end += size;
    return [...flat.subarray(end - size, end)];
  });
}

async function prepare(json: unknown, parameters: readonly Values[], batch: readonly Values[], device: Device) {
  const program = readProgram(json);
  const executor = await Executor.create(program, device);
  const arrays = program.batch.map((value, i) => held(batch[i]!, program.values[value]!.dtype));
  const flat = flatten(parameters);
  const gradient = new Float32Array(flat.length);
  return { program, executor, gradient, step: () => executor.step(flat, arrays, gradient) };
}

/** Loss and gradients of one minibatch; one flat list for each parameter and each batch array. */
async function runProgram(
  json: unknown, parameters: readonly Values[], batch: readonly Values[], device: Device = "wasm",
): Promise<Gradient> {
  const { program, executor, gradient, step } = await prepare(json, parameters, batch, device);
  const loss = await step();
  executor.dispose();
  return { loss, gradients: cut(gradient, program) };
}

/** How long one step takes: the first, which compiles, and the median and fastest of `steps` more. */
async function timeProgram(
  json: unknown, parameters: readonly Values[], batch: readonly Values[], device: Device = "wasm", steps = 100,
): Promise<Timing> {
  const { executor, step } = await prepare(json, parameters, batch, device);
  const times: number[] = [];
  for (let i = 0; i <= steps; i++) {
    const started = performance.now();
    await step();
    times.push(performance.now() - started);
  }
  executor.dispose();
  const [first, ...rest] = times;
  rest.sort((a, b) => a - b);
  return { firstMilliseconds: first!, medianMilliseconds: rest[rest.length >> 1]!, fastestMilliseconds: rest[0]! };
}

Object.assign(globalThis, { runProgram, timeProgram });
