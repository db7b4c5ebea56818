import assert from "node:assert/strict";
import { test } from "node:test";

import { Executor } from "../src/executor/executor";
import { network, ProgramBuilder, someParameters } from "./programs";

test("a network's gradient agrees with finite differences", async () => {
  const program = network(4, [6, 5, 3]);
  const executor = await Executor.create(program, "wasm");
  const parameters = someParameters(program);
  const batch = [Int32Array.from({ length: 24 }, (_, i) => (i * 37) % 256), Int32Array.of(0, 1, 2, 1)];
  const gradient = new Float32Array(parameters.length);
  const lossAt = async (at: Float32Array<ArrayBuffer>): Promise<number> =>
    executor.step(at, batch, new Float32Array(at.length));
  await executor.step(parameters, batch, gradient);
  for (let i = 0; i < parameters.length; i++) {
    const [up, down] = [parameters.slice(), parameters.slice()];
    up[i]! += 1e-2;
    down[i]! -= 1e-2;
    const slope = ((await lossAt(up)) - (await lossAt(down))) / 2e-2;
    assert.ok(Math.abs(slope - gradient[i]!) < 2e-3, `parameter ${i}: ${slope} against ${gradient[i]}`);
  }
  executor.dispose();
});

test("a program that this executor cannot run is refused with the primitive's name", async () => {
  const b = new ProgramBuilder();
  const w = b.parameter([2]);
  const sorted = b.equation("sort", [w], [2]);
  const executor = await Executor.create(b.build(b.constant(0), [sorted]), "wasm");
  await assert.rejects(executor.step(Float32Array.of(2, 1), [], new Float32Array(2)), /no primitive "sort"/);
});

test("patches are what windows cover, every other element of them", async () => {
  const b = new ProgramBuilder();
  const w = b.parameter([1, 7, 1]);
  const options = { counts: [2], strides: [2], window: [3], dilations: [2] };
  const flat = b.equation("reshape", [b.equation("patches", [w], [1, 2, 3, 1], options)], [6]);
  const padded = b.equation("pad", [flat, b.constant(0)], [7], { low: [0], high: [1], interior: [0] });
  const gradient = new Float32Array(7);
  const executor = await Executor.create(b.build(b.constant(0), [b.equation("reshape", [padded], [1, 7, 1])]), "wasm");
  await executor.step(Float32Array.of(0, 1, 2, 3, 4, 5, 6), [], gradient);
  assert.deepEqual([...gradient], [0, 2, 4, 2, 4, 6, 0]);
  executor.dispose();
});

test("an output may be a parameter, a constant, or the same value twice", async () => {
  const b = new ProgramBuilder();
  const [v, w, u] = [b.parameter([2]), b.parameter([2]), b.parameter([2])];
  const executor = await Executor.create(b.build(b.constant(7), [w, w, b.constant([5, 6], [2])]), "wasm");
  const gradient = new Float32Array(6);
  assert.equal(await executor.step(Float32Array.of(1, 2, 3, 4, 9, 9), [], gradient), 7);
  assert.deepEqual([...gradient], [3, 4, 3, 4, 5, 6]);
  assert.ok(v < w && w < u);
  executor.dispose();
});
