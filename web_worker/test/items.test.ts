// Which raw items a replica sends when, at literal times. The twin of tests/replica/test_items.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { unpackItem } from "../src/frames";
import type { Welcome } from "../src/protocol";
import type { Action, ItemOutcome } from "../src/replica/actions";
import { Items, type RawData } from "../src/replica/items";

const WELCOME = { run: "3f0c5a9d2b11", replica: "67414f80a1b2c3d4", stream: { items_in_flight: 3, max_item_bytes: 10 } } as Welcome;

function number(action: Action): number {
  if (action.do === "sendFrame") return unpackItem(action.bytes).number;
  assert.ok(action.do === "send" && action.message.type === "item");
  return action.message.number;
}

/** Somebody who sends items and hears what became of them, in order. */
class Page {
  readonly items = new Items();
  readonly heard: (readonly [RawData, ItemOutcome])[] = [];

  connect(changes: Partial<Welcome> = {}): number[] {
    return this.items.connected({ ...WELCOME, ...changes }, 0).map(number);
  }

  send(data: RawData): number[] {
    return this.items.add(data, (outcome) => this.heard.push([data, outcome]), 0).map(number);
  }

  answer(number_: number, status: "rows" | "busy", rows = 0, retry_seconds: number | null = null): number[] {
    return this.items.answered({ type: "item_answer", number: number_, status, rows, why: null, retry_seconds }, 0).map(number);
  }
}

function connected(): Page {
  const page = new Page();
  page.connect();
  return page;
}

test("items are numbered and sent at once, as far as may be unanswered", () => {
  const page = connected();
  assert.deepEqual(["1", "2", "3", "4"].map((text) => page.send(text)), [[1], [2], [3], []]);
  assert.deepEqual(page.answer(1, "rows", 2), [4]);
  assert.deepEqual(page.heard, [["1", { status: "rows", rows: 2, why: null }]]);
});

test("what is busy goes again with all after it, when its time has come", () => {
  const page = connected();
  for (const text of ["1", "2", "3"]) page.send(text);
  assert.deepEqual(page.answer(2, "busy", 0, 0.5), []);
  assert.deepEqual(page.answer(3, "busy", 0, 0), []);
  assert.equal(page.items.retryAtMilliseconds, 500);
  assert.deepEqual(page.items.send(400), []);
  assert.deepEqual(page.items.send(500).map(number), [2, 3]);
});

test("after a reconnect all that is unanswered is sent again", () => {
  const page = connected();
  for (const text of ["1", "2", "3"]) page.send(text);
  page.answer(1, "rows");
  page.items.disconnected();
  assert.deepEqual(page.send("4"), []);
  assert.deepEqual(page.connect(), [2, 3, 4]);
});

test("under another identity what may have been taken is given up", () => {
  const page = connected();
  page.send("1");
  page.items.disconnected();
  page.send("2");
  assert.deepEqual(page.connect({ replica: "f".repeat(32) }), [1]);
  const why = "the service has forgotten this replica, and nobody knows whether it took the item";
  assert.deepEqual(page.heard, [["1", { status: "rejected", rows: 0, why }]]);
});

test("what is too large is rejected without a number: bytes count, not characters", () => {
  const page = connected();
  assert.deepEqual(page.send('"ééééé"'), []);
  assert.deepEqual(page.heard, [['"ééééé"', { status: "rejected", rows: 0, why: "an item has at most 10 bytes, got 12" }]]);
  assert.deepEqual(page.send("1"), [1]);
});

test("a job without a stream takes none", () => {
  const page = new Page();
  page.send("1");
  assert.deepEqual(page.connect({ stream: null }), []);
  assert.deepEqual(page.heard, [["1", { status: "rejected", rows: 0, why: "this job takes no raw items" }]]);
});

test("bytes go in a frame, JSON in a message", () => {
  const page = connected();
  const [frame] = page.items.add(Uint8Array.of(0, 255), () => undefined, 0);
  assert.ok(frame?.do === "sendFrame");
  assert.deepEqual(unpackItem(frame.bytes), { number: 1, payload: Uint8Array.of(0, 255) });
  const [message] = page.items.add('{"a":[1]}', () => undefined, 0);
  assert.deepEqual(message, { do: "send", message: { type: "item", number: 2, json: { a: [1] } } });
});
