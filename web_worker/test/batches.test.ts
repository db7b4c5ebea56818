import assert from "node:assert/strict";
import { test } from "node:test";

import { FrameError } from "../src/errors";
import type { BatchLayout } from "../src/protocol";
import { Batches, readChunk, type Batch } from "../src/replica/batches";
import { Random } from "../src/replica/random";

const LAYOUT: BatchLayout = {
  rows: 4,
  arrays: [{ name: "x", dtype: "float32", shape: [2] }, { name: "y", dtype: "uint8", shape: [] }],
};

/** A chunk whose row i is x = [i, -i], y = i. */
function chunkBody(first: number, rows: number): ArrayBuffer {
  const body = new ArrayBuffer(rows * 9);
  const numbers = Array.from({ length: rows }, (_, i) => first + i);
  new Float32Array(body, 0, 2 * rows).set(numbers.flatMap((i) => [i, -i]));
  new Uint8Array(body, 8 * rows).set(numbers);
  return body;
}

const add = (batches: Batches, lease: number, first: number, rows: number): void =>
  batches.add(lease, readChunk(chunkBody(first, rows), rows, LAYOUT), [lease]);

const labels = (batch: Batch | null): number[] => [...(batch?.arrays[1] ?? [])];

test("every row of a chunk comes once, its arrays together", () => {
  const batches = new Batches(LAYOUT);
  add(batches, 1, 1, 8);
  const seen: number[] = [];
  for (let batch = batches.next(); batch; batch = batches.next()) {
    const x = batch.arrays[0]!;
    labels(batch).forEach((label, row) => assert.deepEqual([x[2 * row], x[2 * row + 1]], [label, -label]));
    seen.push(...labels(batch));
  }
  assert.deepEqual(seen.sort((a, b) => a - b), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.equal(batches.chunks, 0);
});

test("rows left over carry over into the next chunk, and each lease gets its own", () => {
  const batches = new Batches(LAYOUT);
  add(batches, 1, 0, 6);
  assert.deepEqual(batches.next()!.leases, new Map([[1, 4]]));
  assert.equal(batches.next(), null);
  add(batches, 2, 6, 3);
  assert.deepEqual(batches.next()!.leases, new Map([[1, 2], [2, 2]]));
  assert.equal(batches.rows, 1);
});

test("the last rows are filled up with rows trained before, which do not count again", () => {
  const batches = new Batches(LAYOUT);
  add(batches, 1, 0, 5);
  const before = labels(batches.next());
  const last = batches.flush()!;
  assert.equal(last.rows, 1);
  assert.deepEqual(last.leases, new Map([[1, 1]]));
  assert.deepEqual(labels(last).slice(1), before.slice(1));
  assert.equal(batches.flush(), null);
});

test("fewer rows than a minibatch in all are repeated", () => {
  const batches = new Batches(LAYOUT);
  add(batches, 1, 7, 1);
  assert.deepEqual(labels(batches.flush()), [7, 7, 7, 7]);
});

test("the same seed shuffles alike, another one otherwise", () => {
  const order = (...seeds: number[]): number[] => [...new Random(...seeds).permutation(20)];
  assert.deepEqual(order(1, 2, 3), order(1, 2, 3));
  assert.notDeepEqual(order(1, 2, 3), order(1, 3, 2));
  assert.deepEqual(order(5).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i));
});

test("a chunk of another length is refused", () => {
  assert.throws(() => readChunk(new ArrayBuffer(17), 2, LAYOUT), FrameError);
  assert.throws(() => readChunk(new ArrayBuffer(19), 2, LAYOUT), FrameError);
});

test("uniform numbers are in [0, 1) and spread evenly", () => {
  const numbers = new Random(1).fill(new Float32Array(100_000));
  assert.ok(numbers.every((u) => u >= 0 && u < 1));
  const mean = numbers.reduce((sum, u) => sum + u, 0) / numbers.length;
  assert.ok(Math.abs(mean - 0.5) < 0.005, `mean ${mean}`);
});

test("a minibatch's key tells where its first row lies, and is the same for the same seeds", () => {
  const keys = (lease: number): string[] => {
    const batches = new Batches(LAYOUT);
    add(batches, lease, 0, 9);
    return [batches.next()!, batches.next()!, batches.flush()!].map(({ key }) => key.join());
  };
  const numbers = new Random(3, 4);
  assert.equal(keys(3)[1], [numbers.bits(), numbers.bits()].join());
  assert.deepEqual(keys(3), keys(3));
  assert.equal(new Set([...keys(3), ...keys(4)]).size, 6);
});
