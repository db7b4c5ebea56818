import assert from "node:assert/strict";
import { test } from "node:test";

import type { Ack } from "../src/protocol";
import { Outbox } from "../src/replica/outbox";

const frame = (mark: number): Uint8Array<ArrayBuffer> => Uint8Array.of(mark);
const marks = (frames: Uint8Array[]): number[] => frames.map((bytes) => bytes[0]!);
const ack = (shard: number, sequence: number, status: Ack["status"] = "accepted", retry_seconds: number | null = null): Ack =>
  ({ type: "ack", shard, sequence, status, reason: null, retry_seconds, version: null });

test("frames go out in order, at most as many a shard as there is credit", () => {
  const outbox = new Outbox(1, 2);
  for (const mark of [1, 2, 3]) outbox.add([frame(mark)], new Map());
  assert.deepEqual(marks(outbox.takeSendable(0)), [1, 2]);
  assert.deepEqual(marks(outbox.takeSendable(0)), []);
  outbox.answer(ack(0, 1), 0);
  assert.deepEqual(marks(outbox.takeSendable(0)), [3]);
});

test("there is room for a push only when every shard has credit and nothing waits", () => {
  const outbox = new Outbox(2, 1);
  assert.equal(outbox.hasRoom, true);
  outbox.add([frame(1), frame(11)], new Map());
  outbox.takeSendable(0);
  outbox.answer(ack(0, 1), 0);
  assert.equal(outbox.hasRoom, false);
  outbox.answer(ack(1, 1), 0);
  assert.equal(outbox.hasRoom, true);
});

test("rows are settled when the last shard has answered", () => {
  const outbox = new Outbox(2, 2);
  const rows = new Map([[7, 100]]);
  outbox.add([frame(1), frame(11)], rows);
  outbox.takeSendable(0);
  assert.equal(outbox.answer(ack(1, 1, "duplicate"), 0), null);
  assert.equal(outbox.answer(ack(0, 1), 0), rows);
});

test("after busy the shard waits, then sends the same frame and those behind it in order", () => {
  const outbox = new Outbox(1, 2);
  outbox.add([frame(1)], new Map());
  outbox.add([frame(2)], new Map());
  outbox.takeSendable(0);
  outbox.answer(ack(0, 1, "busy", 0.25), 1000);
  outbox.answer(ack(0, 2, "busy", 0.25), 1000);
  assert.equal(outbox.hasRoom, false);
  assert.equal(outbox.retryAtMilliseconds, 1250);
  assert.deepEqual(marks(outbox.takeSendable(1249)), []);
  assert.deepEqual(marks(outbox.takeSendable(1250)), [1, 2]);
});

test("a rejected frame is not sent again", () => {
  const outbox = new Outbox(1, 1);
  outbox.add([frame(1)], new Map([[3, 5]]));
  outbox.takeSendable(0);
  assert.deepEqual(outbox.answer(ack(0, 1, "rejected"), 0), new Map([[3, 5]]));
  assert.deepEqual(outbox.reconnect([0]), []);
  assert.deepEqual(outbox.takeSendable(0), []);
});

test("a reconnect drops what is applied and sends the rest again in order", () => {
  const outbox = new Outbox(2, 3);
  outbox.add([frame(1), frame(11)], new Map([[1, 10]]));
  outbox.add([frame(2), frame(12)], new Map([[2, 20]]));
  outbox.takeSendable(0);
  assert.deepEqual(outbox.reconnect([1, 0]), []);
  assert.deepEqual(marks(outbox.takeSendable(0)), [2, 11, 12]);
  assert.deepEqual(outbox.reconnect([2, 1]), [new Map([[1, 10]])]);
  assert.deepEqual(marks(outbox.takeSendable(0)), [12]);
});

test("sequence numbers go on above what is applied", () => {
  const outbox = new Outbox(1, 1);
  outbox.reconnect([41]);
  assert.equal(outbox.nextSequence, 42);
});

test("an answer to an unknown frame changes nothing", () => {
  const outbox = new Outbox(1, 1);
  assert.equal(outbox.answer(ack(0, 9), 0), null);
  assert.equal(outbox.answer(ack(5, 1), 0), null);
  assert.equal(outbox.hasRoom, true);
});
