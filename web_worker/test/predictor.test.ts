import assert from "node:assert/strict";
import { test } from "node:test";

import { PredictionError } from "../src/errors";
import { Predictor } from "../src/executor/predictor";
import { readProgram, type Forward } from "../src/program";
import { readRows } from "../src/asked-rows";
import type { BatchArray } from "../src/protocol";
import { ProgramBuilder } from "./programs";

/** y = 2 x w of `rows` rows of two numbers, what is larger of each row, and whether that is the second. Labels are not read. */
function doubled(rows: number): Forward {
  const b = new ProgramBuilder();
  const [w, x] = [b.parameter([2]), b.batch([rows, 2])];
  b.batch([rows], "uint8");
  const wide = b.equation("broadcast_in_dim", [w], [rows, 2], { shape: [rows, 2], broadcast_dimensions: [1] });
  const y = b.equation("mul", [b.equation("mul", [x, wide], [rows, 2]), b.constant(2)], [rows, 2]);
  const top = b.equation("argmax", [y], [rows], { axis: 1, dtype: "int32" }, "int32");
  const second = b.equation("eq", [top, b.constant(1, [], "int32")], [rows], {}, "bool");
  return b.forward({ again: y, second, top, y });
}

const pauses = { count: 0 };
const pause = async (): Promise<void> => void (pauses.count += 1);

for (const [rows, calls] of [[1, 3], [2, 2], [3, 1], [8, 1]] as const) {
  test(`three rows are predicted by a program of ${rows}`, async () => {
    const predictor = await Predictor.create(doubled(rows), "wasm");
    assert.deepEqual(predictor.reads, [true, false]);
    pauses.count = 0;
    const found = await predictor.predict(Float32Array.of(1, 10), [Float32Array.of(1, 2, 30, 4, 50, 6), null], 3, pause);
    assert.equal(pauses.count, calls - 1);
    assert.deepEqual(found, {
      again: { shape: [3, 2], data: Float32Array.of(2, 40, 60, 80, 100, 120) },
      second: { shape: [3], data: Int32Array.of(1, 1, 1) },
      top: { shape: [3], data: Int32Array.of(1, 1, 1) },
      y: { shape: [3, 2], data: Float32Array.of(2, 40, 60, 80, 100, 120) },
    });
    predictor.dispose();
  });
}

test("an output may be an input or a constant, and be without elements", async () => {
  const b = new ProgramBuilder();
  const [x, seven, none] = [b.batch([1, 2]), b.constant(7, [1]), b.constant([], [1, 0])];
  const predictor = await Predictor.create(b.forward({ none, seven, x }), "wasm");
  assert.deepEqual(await predictor.predict(new Float32Array(), [Float32Array.of(1, 2, 3, 4)], 2, pause), {
    none: { shape: [2, 0], data: new Float32Array() },
    seven: { shape: [2], data: Float32Array.of(7, 7) },
    x: { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
  });
  predictor.dispose();
});

test("a forward program is no program of a loss, and gives rows", async () => {
  assert.throws(() => readProgram(doubled(1)), /loss is an integer, got nothing/);
  const b = new ProgramBuilder();
  b.batch([1, 2]);
  await assert.rejects(Predictor.create(b.forward({ mean: b.constant(1) }), "wasm"), /the same rows along the first axis, got \[\]/);
});

const ARRAYS: readonly BatchArray[] = [
  { name: "x", dtype: "float32", shape: [2, 2] }, { name: "n", dtype: "uint8", shape: [] }, { name: "y", dtype: "int32", shape: [] },
];
const READS = [true, true, false];

test("rows are read flat or nested, typed or not", () => {
  const one = { rows: 1, batch: [Float32Array.of(1, 2, 3, 4), Int32Array.of(5), null] };
  assert.deepEqual(readRows({ x: [1, 2, 3, 4], n: 5 }, ARRAYS, READS), one);
  assert.deepEqual(readRows({ x: [[1, 2], [3, 4]], n: [5], y: [1, 2] }, ARRAYS, READS), one);
  assert.deepEqual(readRows({ x: [Float64Array.of(1, 2), Uint8Array.of(3, 4)], n: Uint8Array.of(5) }, ARRAYS, READS), one);
  assert.deepEqual(readRows({ x: Float32Array.of(1, 2, 3, 4, 5, 6, 7, NaN), n: [true, false] }, ARRAYS, READS), {
    rows: 2, batch: [Float32Array.of(1, 2, 3, 4, 5, 6, 7, NaN), Int32Array.of(1, 0), null],
  });
});

for (const [asked, message] of [
  [{ n: 1 }, "predict expects arrays by name, x (float32, 2 x 2 a row), n (uint8 a row), got n"],
  [{ x: [1, 2, 3, 4], n: 1, z: 1 }, "predict expects arrays by name, x (float32, 2 x 2 a row), n (uint8 a row), got x, n, z"],
  [[1, 2], "predict expects arrays by name, x (float32, 2 x 2 a row), n (uint8 a row), got a list"],
  [undefined, "predict expects arrays by name, x (float32, 2 x 2 a row), n (uint8 a row), got undefined"],
  [{ x: [1, 2, 3], n: 1 }, "predict expects x (float32, 2 x 2 a row): 4 numbers for one row, or as many for each, got 3"],
  [{ x: [], n: 1 }, "predict expects x (float32, 2 x 2 a row): 4 numbers for one row, or as many for each, got 0"],
  [{ x: [1, 2, 3, 4], n: [1, 2] }, "predict expects as many rows of each array, got x 1, n 2"],
  [{ x: [1, 2, 3, 4], n: 256 }, "predict expects whole numbers from 0 to 255 for n (uint8 a row), got 256 at 0"],
  [{ x: [1, 2, 3, 4], n: [0.5] }, "predict expects whole numbers from 0 to 255 for n (uint8 a row), got 0.5 at 0"],
  [{ x: [1, 2, 3, "4"], n: 1 }, "predict expects numbers for x (float32, 2 x 2 a row), got string"],
  [{ x: new BigInt64Array(4), n: 1 }, "predict expects numbers for x (float32, 2 x 2 a row), got bigint"],
  [{ x: null, n: 1 }, "predict expects numbers for x (float32, 2 x 2 a row), got null"],
] as const) {
  test(`rows that are not the job's are refused: ${message.slice(16)}`, () => {
    assert.throws(() => readRows(asked, ARRAYS, READS), (error) => {
      assert.ok(error instanceof PredictionError);
      assert.deepEqual([error.reason, error.message], ["input", message]);
      return true;
    });
  });
}
