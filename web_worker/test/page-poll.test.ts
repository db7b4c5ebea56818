import assert from "node:assert/strict";
import { test } from "node:test";
import { poll, retrySeconds } from "../page/poll.js";

/** Polls with scripted answers (a pause, or a failure) and returns the pauses it made. */
async function pauses(script: readonly (number | Error)[], random = 0): Promise<readonly number[]> {
  const made: number[] = [];
  const stop = new AbortController();
  let asked = 0;
  const ask = (): Promise<number> => {
    const answer = script[asked];
    asked += 1;
    return typeof answer === "number" ? Promise.resolve(answer) : Promise.reject(answer);
  };
  const sleep = (seconds: number): Promise<void> => {
    made.push(seconds);
    if (asked === script.length) stop.abort();
    return Promise.resolve();
  };
  await poll({ ask, failed: () => undefined }, { sleep, random: () => random }, stop.signal);
  return made;
}

const away = new Error("away");

test("while all is well the task says when to ask again", async () => {
  assert.deepEqual(await pauses([1, 1, 5]), [1, 1, 5]);
});

test("failures back off, and one success forgets them", async () => {
  assert.deepEqual(await pauses([away, away, away, 1, away]), [0.5, 1, 2, 1, 0.5]);
});

test("backoff doubles up to half a minute, and half of it is chance", () => {
  assert.deepEqual([0, 1, 4, 5, 20].map((failures) => retrySeconds(failures, 0)), [0.5, 1, 8, 15, 15]);
  assert.equal(retrySeconds(20, 1), 30);
});

test("a failure is told with the pause that follows", async () => {
  const told: [unknown, number][] = [];
  const stop = new AbortController();
  const sleep = (): Promise<void> => {
    stop.abort();
    return Promise.resolve();
  };
  await poll({ ask: () => Promise.reject(away), failed: (error, seconds) => told.push([error, seconds]) }, { sleep, random: () => 1 }, stop.signal);
  assert.deepEqual(told, [[away, 1]]);
});
