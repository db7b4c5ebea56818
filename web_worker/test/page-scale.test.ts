import assert from "node:assert/strict";
import { test } from "node:test";
import { segmentShares } from "../page/epochs.js";
import { fieldWords, MOST_DROPS, place } from "../page/field.js";
import { chooseJob } from "../page/picker.js";
import { startRange, valueRange } from "../page/scale.js";
import { aStatus } from "./page-status.js";

function near(actual: readonly number[], expected: readonly number[]): void {
  assert.deepEqual(actual.map((value) => Number(value.toFixed(6))), expected);
}

test("an axis of shares ends on tenths and holds the target", () => {
  near(valueRange("accuracy", [0.24, 0.91], 0.93), [0.2, 1]);
  near(valueRange("accuracy", [0.905, 0.93], 0.93), [0.9, 0.94]);
  near(valueRange("accuracy", [1, 1], null), [0.98, 1]);
});

test("an axis of shares is never empty", () => {
  near(valueRange("accuracy", [0, 0], null), [0, 0.02]);
  near(valueRange("accuracy", [0.5, 0.5], 0.5), [0.5, 0.52]);
});

test("an axis of losses begins at zero, unless losses are negative", () => {
  near(valueRange("loss", [0.5, 2], null), [0, 2.12]);
  near(valueRange("loss", [-1, 1], null), [-1.16, 1.16]);
});

test("an empty panel has axes all the same", () => {
  near(valueRange("accuracy", null, 0.93), [0, 1]);
  near(valueRange("loss", null, null), [0, 1.08]);
  near(startRange(0, 10), [0, 10]);
});

test("segments of the epochs fill one after the other", () => {
  near(segmentShares(1.5, 4, 4), [1, 0.5, 0, 0]);
  near(segmentShares(5, 4, 4), [1, 1, 1, 1]);
  near(segmentShares(50, 200, 1), [0.25]);
});

test("the field says what its drops are", () => {
  assert.deepEqual([[0, 0], [1, 0], [3, 0], [1, 1], [2, 1], [1201, 1]].map(([replicas = 0, yours = 0]) => fieldWords(replicas, yours)), [
    "No one is here yet. Be the first.", "1 replica at work", "3 replicas at work",
    "You, alone so far", "You and 1 other", "You and 1,200 others",
  ]);
});

test("no two drops hang in the same place", () => {
  const places = Array.from({ length: MOST_DROPS }, (_, index) => place(index));
  assert.equal(new Set(places.map(({ across }) => across.toFixed(3))).size, MOST_DROPS);
  assert.deepEqual(place(0), { across: 0.5, down: 0.5 });
});

test("the newest running job is shown first, else the newest", () => {
  const done = aStatus({ job: "done", state: "finished" });
  assert.equal(chooseJob([done, aStatus({ job: "runs" }), aStatus({ job: "older" })]), "runs");
  assert.equal(chooseJob([done]), "done");
  assert.equal(chooseJob([]), null);
});
