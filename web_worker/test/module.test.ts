import assert from "node:assert/strict";
import { test } from "node:test";

import { ModelError } from "../src/errors";
import { Executor, type BatchData } from "../src/executor/executor";
import { ModuleModel, readModule, type Context, type Tree } from "../src/executor/module";
import type { numpy } from "@jax-js/jax";

type np = numpy.Array;
type Exports = Record<string, unknown>;
const array = (value: unknown): np => value as np;

const LAYOUT = {
  parameters: [{ name: "layers/0/w", shape: [3, 2] }, { name: "layers/1/w", shape: [2] }, { name: "scale", shape: [] }],
  batch: { rows: 2, arrays: [{ name: "x", dtype: "float32" as const, shape: [3] }, { name: "y", dtype: "uint8" as const, shape: [] }] },
};
const PARAMETERS = Float32Array.of(0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 1, -2, 3);
const BATCH: BatchData[] = [Float32Array.of(1, 2, 3, -1, 0, 2), Int32Array.of(1, 4)];

/** mean((x W0 w1 scale - y)^2) */
function squares(params: Tree, batch: Tree, { np }: Context): np {
  const [first, second] = params["layers"] as unknown as Tree[];
  const found = np.dot(np.dot(array(batch["x"]), array(first!["w"])), array(second!["w"])).mul(array(params["scale"]));
  return np.mean(np.square(found.sub(array(batch["y"]).astype(np.float32))));
}

async function stepOf(exports: Exports, batch = BATCH): Promise<{ loss: number; gradient: Float32Array }> {
  const executor = await Executor.ofModule(new ModuleModel(readModule(exports, "model.js"), LAYOUT), "wasm");
  const gradient = new Float32Array(PARAMETERS.length);
  try {
    return { loss: await executor.step(PARAMETERS, batch, gradient), gradient };
  } finally {
    executor.dispose();
  }
}

/** The same by hand: values in float64, and its derivatives by central differences. */
function squaresByHand([a, b, c, d, e, f, u, v, s]: number[]): number {
  const rows = [[1, 2, 3, 1], [-1, 0, 2, 4]] as const;
  const errors = rows.map(([x, y, z, wanted]) =>
    ((x * a! + y * c! + z * e!) * u! + (x * b! + y * d! + z * f!) * v!) * s! - wanted);
  return (errors[0]! ** 2 + errors[1]! ** 2) / 2;
}

test("a module's loss and gradient are those of its formula", async () => {
  const { loss, gradient } = await stepOf({ loss: squares });
  const values = [...PARAMETERS];
  assert.ok(Math.abs(loss - squaresByHand(values)) < 1e-4);
  values.forEach((value, i) => {
    const moved = (by: number): number => squaresByHand(values.map((other, j) => (j === i ? value + by : other)));
    const slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
    assert.ok(Math.abs(slope - gradient[i]!) < 1e-3 * Math.max(1, Math.abs(slope)), `${i}: ${slope} against ${gradient[i]}`);
  });
});

test("preprocess changes the batch before the loss sees it", async () => {
  const preprocess = ({ x, y }: Tree): object => ({ x: array(x).mul(0), y });
  // Nothing is left of x: mean(y^2).
  assert.equal((await stepOf({ loss: squares, preprocess })).loss, 8.5);
});

test("parameters and batch arrays can be read as often as one likes, or never", async () => {
  const loss = (params: Tree, batch: Tree, { np }: Context): np =>
    np.sum(array(params["scale"]).mul(array(params["scale"]))).add(np.sum(array(batch["x"]).mul(array(batch["x"]))));
  const { loss: value, gradient } = await stepOf({ loss });
  assert.equal(value, 28);
  assert.deepEqual([...gradient], [0, 0, 0, 0, 0, 0, 0, 0, 6]);
});

test("a random key is passed to the loss", async () => {
  const loss = (params: Tree, _: Tree, { np, random, key }: Context): np =>
    np.sum(random.uniform(key, [4])).mul(array(params["scale"]));
  const executor = await Executor.ofModule(new ModuleModel(readModule({ loss }, "model.js"), LAYOUT), "wasm");
  const gradient = new Float32Array(9);
  const draw = (...key: [number, number]): Promise<number> => executor.step(PARAMETERS, BATCH, gradient, Uint32Array.from(key));
  const [one, again, other] = [await draw(0, 1), await draw(0, 1), await draw(0, 2)];
  assert.equal(one, again);
  assert.notEqual(one, other);
  executor.dispose();
});

const usedTwice = ({ scale }: Tree): np => {
  const more = array(scale).add(1);
  return more.mul(more);
};

const REFUSED: [string, Exports, RegExp][] = [
  ["no loss", { Loss: squares }, /model\.js expects `export function loss.*`, got exports of Loss/],
  ["metrics that are no function", { loss: squares, metrics: 3 }, /expects metrics to be a function, got number/],
  ["a loss for each row", { loss: (_: Tree, { x }: Tree) => array(x).sum(1) }, /returns one float32.* got float32\[2\]/],
  ["an async loss", { loss: async () => 1 }, /got a promise: it must not be async/],
  ["an integer loss", { loss: (_: Tree, { y }: Tree) => array(y).sum() }, /got int32\[\]/],
  ["a loss that returns nothing", { loss: () => undefined }, /got undefined/],
  ["a loss that throws", { loss: (params: Tree) => array(params["none"]).sum() }, /loss of model\.js raised TypeError.*: Cannot read/],
  ["an array used twice", { loss: usedTwice }, /raised ReferenceError.*use \.ref/],
  ["a batch that is no object", { loss: squares, preprocess: () => 1 }, /preprocess of model\.js returns arrays by name, got number/],
];
for (const [name, exports, message] of REFUSED) {
  test(`refused: ${name}`, async () => {
    await assert.rejects(stepOf(exports), (error: Error) => error instanceof ModelError && message.test(error.message));
  });
}

test("what is concatenated or padded keeps constants to themselves", async () => {
  // A column of ones beside x, and a border of zeros around what is computed.
  const loss = (_params: Tree, batch: Tree, { np }: Context): np => {
    const x = array(batch["x"]);
    const wide = np.concatenate([x, np.ones([2, 1])], 1);
    const framed = np.pad(np.ones([2, 4]).mul(3), [[1, 0], [0, 1]]);
    return np.sum(wide).add(np.sum(framed).mul(100)).add(np.sum(np.pad(array(batch["x"]).add(1), [[1, 1], [0, 0]])).mul(10_000));
  };
  // x sums to 7 and has 6 elements: 7 + 2, 8 * 3 * 100, (7 + 6) * 10,000.
  assert.equal((await stepOf({ loss })).loss, 9 + 2400 + 130_000);
});

test("a constant that is concatenated is summed with the rest", async () => {
  const loss = (_params: Tree, batch: Tree, { np }: Context): np =>
    np.sum(np.concatenate([array(batch["x"]), np.ones([2, 1])], 1).mul(np.array([[1, 1, 1, 10]])));
  assert.equal((await stepOf({ loss })).loss, 7 + 20);
});

test("a convolution pads with zeros whatever its input is made of", async () => {
  const loss = (_params: Tree, _batch: Tree, { np, lax }: Context): np => {
    const ones = np.ones([1, 1, 3, 3]);
    return np.sum(lax.convGeneralDilated(ones, np.ones([1, 1, 3, 3]), [1, 1], "SAME"));
  };
  // Of the 81 products 4 corners have 4 ones, 4 sides 6, the middle 9.
  assert.equal((await stepOf({ loss })).loss, 4 * 4 + 4 * 6 + 9);
});

test("a sum over a million elements keeps its digits", async () => {
  const loss = (_params: Tree, _batch: Tree, { np }: Context): np => np.mean(np.ones([1_000_003]).mul(0.1));
  assert.ok(Math.abs((await stepOf({ loss })).loss - 0.1) < 1e-7);
});

test("extremes have gradients, shared where several are the greatest", async () => {
  const loss = ({ layers, scale }: Tree, _: Tree, { np }: Context): np => {
    const [first, second] = layers as unknown as Tree[];
    const greatest = np.sum(np.max(array(first!["w"]), 0)).add(np.min(array(second!["w"])));
    return greatest.add(np.max(np.concatenate([array(scale).reshape([1]), array(scale).reshape([1])])));
  };
  const { loss: value, gradient } = await stepOf({ loss });
  // w is [[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]]: 0.3 + 0.6, then -2, then 3 twice.
  assert.ok(Math.abs(value - 1.9) < 1e-6);
  assert.deepEqual([...gradient], [0, 0, 1, 0, 0, 1, 0, 1, 1]);
});

test("einsum has values and gradients", async () => {
  const loss = ({ layers }: Tree, { x }: Tree, { np }: Context): np => {
    const [first, second] = layers as unknown as Tree[];
    return np.sum(np.einsum("ij,jk,k->i", array(x), array(first!["w"]), array(second!["w"])));
  };
  const { loss: value, gradient } = await stepOf({ loss });
  // The rows of x add up to [0, 2, 5]; w1 is [1, -2].
  assert.ok(Math.abs(value - (2 * (0.3 - 0.8) + 5 * (-0.5 - 1.2))) < 1e-5);
  [0, 0, 2, -4, 5, -10].forEach((slope, i) => assert.ok(Math.abs(gradient[i]! - slope) < 1e-5));
});
