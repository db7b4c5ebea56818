import assert from "node:assert/strict";
import { test } from "node:test";
import { gradientsAbsorbed, readJobs, readStatus, StatusError } from "../page/status.js";
import { aStatus } from "./page-status.js";

/** The example of docs/protocol.md. */
const WIRE = {
  job: "mnist",
  run: "3f0c5a9d2b11",
  state: "running",
  reason: null,
  created_seconds: 1763800000.0,
  parameters: 79510,
  shards: 2,
  bytes_per_push: 79902,
  rows: 6800,
  epochs: 10,
  batch_rows: 100,
  optimizer: "adagrad",
  until: "accuracy >= 0.93",
  versions: [812, 811],
  updates_per_second: 96.1,
  replicas: 4,
  gateways: 2,
  backlog: 3,
  epoch: 1.6,
  minibatches: 820,
  dropped: 2,
  stalled: null,
  loss: 0.41,
  metrics: { accuracy: 0.912, loss: 0.38 },
  curve: [{ index: 42, kind: "held_out", seconds: 8.4, version: 795, values: { accuracy: 0.91, loss: 0.39 } }],
};

test("the protocol's example reads as written", () => {
  assert.deepEqual(
    readStatus(WIRE),
    aStatus({
      until: "accuracy >= 0.93",
      loss: 0.41,
      metrics: { accuracy: 0.912, loss: 0.38 },
      curve: [{ index: 42, kind: "held_out", seconds: 8.4, version: 795, values: { accuracy: 0.91, loss: 0.39 } }],
    }),
  );
});

test("unknown fields are ignored, and a list of jobs needs no curves", () => {
  const { curve: _, ...bare } = { ...WIRE, mood: "good" };
  assert.deepEqual(readJobs({ jobs: [bare] })[0]?.curve, []);
});

test("a value that diverged is left out, not drawn", () => {
  assert.deepEqual(readStatus({ ...WIRE, metrics: { accuracy: 0.1, loss: null } }).metrics, { accuracy: 0.1 });
});

test("why a run diverges is read whole, and of a gateway that does not say it, nothing", () => {
  const training = { where: "training", metric: "loss", certain: true, value: 1e28, first: 2.3 };
  assert.deepEqual(readStatus({ ...WIRE, diverging: training }).diverging, training);
  const heldOut = { where: "held_out", metric: "loss", certain: false, value: null, first: null };
  const known = { met: 2, patience: 3, diverging: heldOut };
  assert.deepEqual(readStatus({ ...WIRE, ...known }), { ...readStatus(WIRE), ...known });
});

test("what is not a status is refused with the field's name", () => {
  assert.throws(() => readStatus({ ...WIRE, rows: "6800" }), new StatusError("rows expects a number, got string"));
  assert.throws(() => readStatus([]), new StatusError("status expects an object, got a list"));
  assert.throws(() => readStatus({ ...WIRE, versions: null }), new StatusError("versions expects a list, got null"));
});

test("a gradient counts as absorbed when every shard has it", () => {
  assert.equal(gradientsAbsorbed(readStatus(WIRE)), 811);
  assert.equal(gradientsAbsorbed(readStatus({ ...WIRE, versions: [] })), 0);
});

test("a stream is read whole: its items, and the newest score of fresh rows", () => {
  const stream = { gave_rows: 5, discarded: 2, rejected: 1, reasons: { timeout: 1 }, waiting: 0, rows: 9, pool_rows: 8, held_out_rows: 0 };
  const fresh = { index: 43, kind: "progressive", seconds: 9, version: 800, values: { loss: 0.5 } };
  const status = readStatus({ ...WIRE, stream, progressive: { loss: 0.5 }, curve: [fresh] });
  assert.deepEqual(status.stream, { gaveRows: 5, discarded: 2, rejected: 1, poolRows: 8 });
  assert.deepEqual([status.progressive, status.curve[0]?.kind], [{ loss: 0.5 }, "progressive"]);
});
