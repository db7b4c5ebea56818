// A browser that was offline: whoever waits to try again does so within a second of the `online` event.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { insist } from "../src/replica/downloads";
import { UnreachableError } from "../src/replica/gateway";
import { hurry, pauseBeforeRetry } from "../src/replica/scheduling";

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** How many of the promises are fulfilled. */
async function fulfilled(promises: readonly Promise<void>[]): Promise<number> {
  let count = 0;
  for (const each of promises) void each.then(() => (count += 1));
  await settled();
  return count;
}

function mockTime(t: TestContext): (milliseconds: number) => void {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  return (milliseconds) => t.mock.timers.tick(milliseconds);
}

test("who waits half a minute comes back within a second of being online", async (t) => {
  const pass = mockTime(t);
  const pauses = [pauseBeforeRetry(30_000), pauseBeforeRetry(12_000)];
  pass(5000);
  assert.equal(await fulfilled(pauses), 0);
  hurry(() => 0.999);
  pass(998);
  assert.equal(await fulfilled(pauses), 0);
  pass(1);
  assert.equal(await fulfilled(pauses), 2);
});

test("a crowd that is online again comes back spread over a second", async (t) => {
  const pass = mockTime(t);
  const pauses = Array.from({ length: 4 }, () => pauseBeforeRetry(30_000));
  let drawn = 0;
  hurry(() => drawn++ / 4);
  const back: number[] = [];
  for (const milliseconds of [0, 250, 250, 250]) {
    pass(milliseconds);
    back.push(await fulfilled(pauses));
  }
  assert.deepEqual(back, [1, 2, 3, 4]);
});

test("a pause that is over is hurried no more", async (t) => {
  const pass = mockTime(t);
  const first = pauseBeforeRetry(100);
  pass(100);
  assert.equal(await fulfilled([first]), 1);
  let drawn = 0;
  hurry(() => (drawn += 1) / 10);
  assert.equal(drawn, 0);
});

test("a download that waits for the service is tried again at once", async (t) => {
  const pass = mockTime(t);
  let attempts = 0;
  const get = async (): Promise<string> => {
    attempts += 1;
    if (attempts < 2) throw new UnreachableError("offline");
    return "here";
  };
  const got = insist(get, () => 0.9, () => true, () => {});
  await settled();
  hurry(() => 0.5);
  pass(500);
  assert.equal(await got, "here");
});
