import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ack } from "../src/protocol";
import { Ahead } from "../src/replica/ahead";

function ack(sequence: number, status: Ack["status"], version: number | null, shard = 0): Ack {
  return { type: "ack", shard, sequence, status, reason: null, retry_seconds: null, version };
}

test("a pushed gradient is missing until parameters of its version are adopted", () => {
  const ahead = new Ahead();
  ahead.pushed(1, 0);
  ahead.adopted(100);
  assert.equal(ahead.count(1), 1, "nobody knows its version yet");
  ahead.answered(ack(1, "accepted", 12));
  ahead.adopted(11);
  assert.equal(ahead.count(2), 1);
  ahead.adopted(12);
  assert.equal(ahead.count(3), 0);
});

test("a gradient that will not be applied is not missing", () => {
  const ahead = new Ahead();
  ahead.pushed(1, 0);
  ahead.pushed(2, 0);
  ahead.answered(ack(1, "duplicate", null));
  ahead.answered(ack(2, "busy", null));
  assert.equal(ahead.count(1), 1, "a busy one is sent again");
  ahead.answered(ack(2, "rejected", null));
  assert.equal(ahead.count(1), 0);
});

test("only the first shard counts, for every push has a frame of it", () => {
  const ahead = new Ahead();
  ahead.pushed(1, 0);
  ahead.answered(ack(1, "accepted", 3, 1));
  ahead.adopted(3);
  assert.equal(ahead.count(1), 1);
});

test("a gradient is missed for a second at most", () => {
  const ahead = new Ahead();
  ahead.pushed(1, 500);
  assert.equal(ahead.expiresAtMilliseconds, 1500);
  assert.equal(ahead.count(1499), 1);
  assert.equal(ahead.count(1500), 0);
  assert.equal(ahead.expiresAtMilliseconds, null);
});
