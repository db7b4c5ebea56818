import assert from "node:assert/strict";
import { test } from "node:test";

import type { numpy } from "@jax-js/jax";

import type { Executor } from "../src/executor/executor";
import type { Context, Tree } from "../src/executor/module";
import { network, ProgramBuilder, someParameters } from "./programs";

const array = (value: unknown): numpy.Array => value as numpy.Array;

// jax-js keeps its arrays in one WebAssembly.Memory and does not show it: it is caught when jax-js makes it. What is not
// freed makes it grow, and nothing else does, since freed blocks are used again.
const memories: WebAssembly.Memory[] = [];
const Original = WebAssembly.Memory;
WebAssembly.Memory = class extends Original {
  constructor(descriptor: WebAssembly.MemoryDescriptor) {
    super(descriptor);
    memories.push(this);
  }
};
const heldBytes = (): number => memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);

async function growthOf(executor: Pick<Executor, "dispose">, steps: number, step: () => Promise<number>): Promise<number> {
  // The first steps compile and fill the allocator's free lists.
  for (let i = 0; i < 5; i++) await step();
  const before = heldBytes();
  for (let i = 0; i < steps; i++) await step();
  executor.dispose();
  return heldBytes() - before;
}

test("a thousand steps of a network leave no array behind", async () => {
  const { Executor } = await import("../src/executor/executor");
  const program = network(8, [50, 20, 5]);
  const executor = await Executor.create(program, "wasm");
  const parameters = someParameters(program);
  const batch = [Int32Array.from({ length: 400 }, (_, i) => i % 256), Int32Array.from({ length: 8 }, (_, i) => i % 5)];
  const gradient = new Float32Array(parameters.length);
  assert.ok(heldBytes() >= 0);
  assert.equal(await growthOf(executor, 1000, () => executor.step(parameters, batch, gradient)), 0);
  assert.ok(heldBytes() > 0, "the memory of jax-js was not caught");
});

test("a thousand predictions leave no array behind", async () => {
  const { Predictor } = await import("../src/executor/predictor");
  const b = new ProgramBuilder();
  const [w, x] = [b.parameter([50, 20]), b.batch([8, 50])];
  b.batch([8], "uint8");
  const y = b.equation("dot_general", [x, w], [8, 20], { contract: [[1], [0]], batch: [[], []] });
  const predictor = await Predictor.create(b.forward({ y, again: y, one: b.constant(1, [8]) }), "wasm");
  const parameters = Float32Array.from({ length: 1000 }, (_, i) => i);
  const rows = Float32Array.from({ length: 500 }, (_, i) => i);
  const predict = async (): Promise<number> => (await predictor.predict(parameters, [rows, null], 10, async () => {}))["y"]!.data[0]!;
  assert.equal(await growthOf(predictor, 1000, predict), 0);
  assert.ok(heldBytes() > 0, "the memory of jax-js was not caught");
});

test("values that nothing reads, and outputs that are inputs, leave no array behind", async () => {
  const { Executor } = await import("../src/executor/executor");
  const b = new ProgramBuilder();
  const [w, x] = [b.parameter([64]), b.batch([64])];
  b.equation("exp", [x], [64]);
  const same = b.equation("copy", [w], [64]);
  const loss = b.equation("reduce_sum", [b.equation("mul", [x, x], [64])], [], { axes: [0] });
  b.equation("add", [w, b.constant(Array.from({ length: 64 }, (_, i) => i), [64])], [64]);
  const executor = await Executor.create(b.build(loss, [same]), "wasm");
  const [parameters, gradient] = [new Float32Array(64).fill(2), new Float32Array(64)];
  const step = (): Promise<number> => executor.step(parameters, [new Float32Array(64).fill(3)], gradient);
  assert.equal(await step(), 576);
  assert.deepEqual(gradient, parameters);
  assert.equal(await growthOf(executor, 2000, step), 0);
});

test("a thousand steps of a module leave no array behind", async () => {
  const { Executor } = await import("../src/executor/executor");
  const { ModuleModel, readModule } = await import("../src/executor/module");
  // Reads an array twice, another one never, makes a constant, draws noise.
  const loss = ({ w }: Tree, { x }: Tree, { np, random, key }: Context): numpy.Array => {
    const noisy = array(x).add(np.array(Array.from({ length: 64 }, (_, i) => i))).add(random.normal(key, [4, 64]));
    return np.mean(np.square(np.dot(noisy, array(w)).add(np.sum(array(w)))));
  };
  const layout = {
    parameters: [{ name: "unused", shape: [64] }, { name: "w", shape: [64] }],
    batch: { rows: 4, arrays: [{ name: "x", dtype: "float32" as const, shape: [64] }] },
  };
  const executor = await Executor.ofModule(new ModuleModel(readModule({ loss }, "model.js"), layout), "wasm");
  const [parameters, gradient] = [new Float32Array(128).fill(0.1), new Float32Array(128)];
  const step = (): Promise<number> => executor.step(parameters, [new Float32Array(256).fill(1)], gradient, Uint32Array.of(1, 2));
  assert.equal(await growthOf(executor, 1000, step), 0);
  assert.ok(gradient.subarray(64).every((slope) => slope !== 0));
});
