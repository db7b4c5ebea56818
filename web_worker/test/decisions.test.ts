// The small deciders: backoff, close codes, leases, devices, the shelf, the accumulator.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Accumulator } from "../src/replica/accumulator";
import { Backoff, BASE_SECONDS, CAP_SECONDS } from "../src/replica/backoff";
import type { Batch } from "../src/replica/batches";
import { afterClose } from "../src/replica/closing";
import { isRealGpu } from "../src/replica/device";
import { Leases } from "../src/replica/leases";
import { Shelf } from "../src/replica/shelf";

test("pauses double up to the cap, and start again after a reset", () => {
  const backoff = new Backoff(() => 1);
  const pauses = Array.from({ length: 7 }, () => backoff.nextSeconds());
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, CAP_SECONDS, CAP_SECONDS]);
  backoff.reset();
  assert.equal(backoff.nextSeconds(), BASE_SECONDS);
});

test("jitter is full: a pause may be nothing at all", () => {
  assert.equal(new Backoff(() => 0).nextSeconds(), 0);
});

test("each close code has the consequence that the protocol gives it", () => {
  const consequence = (code: number): string => afterClose(code, 0).then;
  for (const code of [1001, 1006, 1011, 1012, 1013, 4001, 4006]) assert.equal(consequence(code), "reconnect", String(code));
  for (const code of [1009, 4000, 4002, 4003, 4004]) assert.equal(consequence(code), "fail", String(code));
  assert.equal(afterClose(4005, 4).then, "start anew");
  assert.equal(afterClose(4005, 5).then, "fail");
  assert.equal(consequence(1000), "finish");
});

const grant = (lease: number, rows: number) => ({ lease, epoch: 0, chunk: lease, rows, seconds: 60, sha256: null });

test("two chunks are kept in hand, and one question is asked at a time", () => {
  const leases = new Leases();
  assert.equal(leases.ask(0, 0), 2);
  assert.equal(leases.ask(0, 0), 0);
  leases.grant([grant(1, 10), grant(2, 10)]);
  assert.equal(leases.ask(2, 0), 0);
  assert.equal(leases.ask(1, 0), 1);
});

test("training that waits for chunks asks for more of them, up to sixteen", () => {
  const leases = new Leases();
  for (let i = 0; i < 5; i++) leases.starve();
  assert.equal(leases.ask(0, 0), 16);
});

test("after wait it asks when the time has come", () => {
  const leases = new Leases();
  leases.ask(0, 0);
  leases.wait(1.5, null, 1000);
  assert.equal(leases.isDry, true);
  assert.equal(leases.ask(0, 2499), 0);
  assert.equal(leases.ask(0, 2500), 2);
});

test("a lease is trained when its last row is settled", () => {
  const leases = new Leases();
  leases.grant([grant(1, 10), grant(2, 5)]);
  assert.deepEqual(leases.settle(new Map([[1, 9], [2, 5]])), [2]);
  assert.deepEqual(leases.settle(new Map([[1, 1]])), [1]);
  assert.deepEqual(leases.held, []);
});

test("rows of a lease that is not held settle nothing", () => {
  assert.deepEqual(new Leases().settle(new Map([[1, 9]])), []);
});

test("a GPU imitated in software is not a real one", () => {
  assert.equal(isRealGpu({ vendor: "google", architecture: "swiftshader" }), false);
  assert.equal(isRealGpu({ description: "llvmpipe (LLVM 15.0.6, 256 bits)" }), false);
  assert.equal(isRealGpu({ vendor: "nvidia", isFallbackAdapter: true }), false);
  assert.equal(isRealGpu({ vendor: "nvidia", architecture: "ampere", isFallbackAdapter: false }), true);
  assert.equal(isRealGpu({}), true);
});

const chunkOf = (bytes: number) => ({ rows: bytes, arrays: [new Uint8Array(bytes)] });

test("the shelf keeps the chunks used last within its bytes", () => {
  const shelf = new Shelf(10);
  const [a, b, c] = [chunkOf(4), chunkOf(4), chunkOf(4)];
  shelf.put("a", a);
  shelf.put("b", b);
  shelf.take("a");
  shelf.put("c", c);
  assert.equal(shelf.take("a"), a);
  assert.equal(shelf.take("b"), null);
  assert.equal(shelf.take("c"), c);
});

test("gradients are summed, losses averaged, and the base versions are those of the first", () => {
  const accumulator = new Accumulator(2);
  const batch = (lease: number): Batch => ({ arrays: [], key: new Uint32Array(2), rows: 3, leases: new Map([[lease, 3]]) });
  accumulator.add(Float32Array.of(1, 2), 4, batch(1), [5, 6]);
  accumulator.add(Float32Array.of(10, 20), 2, batch(1), [7, 8]);
  const sum = accumulator.take();
  assert.deepEqual([...sum.gradient], [11, 22]);
  assert.deepEqual([sum.loss, sum.rows, sum.minibatches], [3, 6, 2]);
  assert.deepEqual(sum.baseVersions, [5, 6]);
  assert.deepEqual(sum.leases, new Map([[1, 6]]));
  accumulator.add(Float32Array.of(1, 1), 1, batch(2), [9, 9]);
  assert.deepEqual([...accumulator.take().gradient], [1, 1]);
});
