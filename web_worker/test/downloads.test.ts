// Downloads that fail: which are tried again, and for how long. No jitter is drawn, so that pauses last 0 ms.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProgramError } from "../src/errors";
import { download, insist } from "../src/replica/downloads";
import { Gateway, RefusedError, UnreachableError } from "../src/replica/gateway";

const none = (): number => 0;
const always = (): boolean => true;
const AWAY = new UnreachableError("expected /program to answer 200, got 503");

/** Fails with `error` so many times, then gives "here". */
function flaky(error: Error, times: number): { attempts: number; get: () => Promise<string> } {
  const source = {
    attempts: 0,
    get: async (): Promise<string> => {
      source.attempts += 1;
      if (source.attempts <= times) throw error;
      return "here";
    },
  };
  return source;
}

test("a chunk is given up after four attempts", async () => {
  const source = flaky(AWAY, 4);
  await assert.rejects(download(source.get, none), AWAY);
  assert.equal(source.attempts, 4);
});

test("a program is waited for as long as the service is away, even when no pause is drawn", async () => {
  const source = flaky(AWAY, 20);
  const told: Error[] = [];
  assert.equal(await insist(source.get, none, always, (error) => told.push(error)), "here");
  assert.equal(told.length, 20);
});

test("what trying again would not mend is thrown at once", async () => {
  for (const error of [new ProgramError("no sort here"), new RefusedError("got 404")]) {
    const source = flaky(error, 1);
    await assert.rejects(insist(source.get, none, always, none), error);
    assert.equal(source.attempts, 1);
  }
});

test("a program that is no longer wanted is not asked for again, nor returned", async () => {
  const source = flaky(AWAY, 20);
  assert.equal(await insist(source.get, none, () => source.attempts < 3, none), null);
  assert.equal(source.attempts, 3);
  const late = flaky(AWAY, 0);
  assert.equal(await insist(late.get, none, () => late.attempts === 0, none), null);
});

test("a gateway that is away may be asked again, one that refuses may not", async (t) => {
  const gateway = new Gateway("http://gateway/");
  const answers = async (status: number): Promise<unknown> => {
    t.mock.method(globalThis, "fetch", async () => new Response("", { status }));
    return gateway.program("/p").catch((error: unknown) => error);
  };
  for (const status of [408, 429, 500, 502, 503]) assert.ok((await answers(status)) instanceof UnreachableError, String(status));
  for (const status of [403, 404]) assert.ok((await answers(status)) instanceof RefusedError, String(status));
  t.mock.method(globalThis, "fetch", async () => Promise.reject(new TypeError("fetch failed")));
  await assert.rejects(gateway.program("/p"), UnreachableError);
  const broken = new Response(new ReadableStream({ start: (body) => body.error(new TypeError("terminated")) }));
  t.mock.method(globalThis, "fetch", async () => broken);
  await assert.rejects(gateway.program("/p"), UnreachableError);
});
