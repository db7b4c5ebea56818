import assert from "node:assert/strict";
import { test } from "node:test";

import { Executor } from "../src/executor/executor";
import { network, someParameters } from "./programs";

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

test("speed", async () => {
  const program = network(100, [784, 100, 10]);
  const executor = await Executor.create(program, "wasm");
  const parameters = someParameters(program);
  const batch = [Int32Array.from({ length: 78400 }, (_, i) => (i * 37) % 256), Int32Array.from({ length: 100 }, (_, i) => i % 10)];
  const gradient = new Float32Array(parameters.length);
  for (let i = 0; i < 20; i++) await executor.step(parameters, batch, gradient);
  const times = [];
  for (let i = 0; i < 200; i++) { const t = performance.now(); await executor.step(parameters, batch, gradient); times.push(performance.now() - t); }
  times.sort((a, b) => a - b);
  console.log("median ms", times[100], "min", times[0]);
});
