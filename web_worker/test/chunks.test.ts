// Where a replica's chunks come from, on a network and a cache that a test holds in its hand.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import type { Grant, Welcome } from "../src/protocol";
import { ChunkCache } from "../src/replica/chunk-cache";
import { Chunks } from "../src/replica/chunks";
import { DamagedError, Gateway } from "../src/replica/gateway";
import type { Network } from "../src/replica/network";
import { digest } from "../src/replica/sha256";

const CDN = "https://cdn.example/digits/";
const AT_GATEWAY = "https://gateway.example/jobs/digits/3f0c5a9d2b11/chunks/";

const WELCOME = {
  job: "digits", run: "3f0c5a9d2b11", chunk_url: null, stream: null, batch: { rows: 1, arrays: [{ name: "x", dtype: "uint8", shape: [] }] },
} as unknown as Welcome;
const ON_CDN: Welcome = { ...WELCOME, chunk_url: CDN };

const bodyOf = (chunk: number): Uint8Array<ArrayBuffer> => Uint8Array.of(chunk, 1, 2, 3);
const nameOf = (chunk: number): string => digest(bodyOf(chunk));
const grantOf = (chunk: number): Grant => ({ lease: chunk, epoch: 0, chunk, rows: 4, seconds: 60, sha256: nameOf(chunk) });

type Answer = (url: string, attempt: number) => Response | Promise<Response>;

/** Says what was asked of it, and how. */
class FakeNetwork implements Network {
  readonly asked: string[] = [];

  constructor(readonly answer: Answer, readonly reachesAll = true) {}

  async get(url: string, { cache = "default" }: RequestInit): Promise<Response> {
    this.asked.push(`${url} ${cache}`);
    return this.answer(url, this.asked.length);
  }

  open(): never {
    throw new Error("no socket here");
  }
}

/** The browser's, as far as it is used. */
class FakeCache {
  readonly kept = new Map<string, Uint8Array>();
  isFull = false;

  async match(url: string): Promise<Response | undefined> {
    const found = this.kept.get(url);
    return found && new Response(found.slice());
  }

  async put(url: string, response: Response): Promise<void> {
    if (this.isFull) throw new DOMException("no room", "QuotaExceededError");
    this.kept.set(url, new Uint8Array(await response.arrayBuffer()));
  }

  async keys(): Promise<Request[]> {
    return [...this.kept.keys()].map((url) => new Request(url));
  }

  async delete({ url }: Request): Promise<boolean> {
    return this.kept.delete(url);
  }
}

async function cacheOf(t: TestContext, fake: FakeCache, mostBytes?: number): Promise<ChunkCache | null> {
  t.after(() => Reflect.deleteProperty(globalThis, "caches"));
  Object.assign(globalThis, { caches: { open: async () => fake } });
  return ChunkCache.open(() => 0, mostBytes);
}

const whole: Answer = (url) => {
  const chunk = [...Array(100).keys()].find((each) => url.endsWith(nameOf(each)) || url.endsWith(`/${each}`));
  return new Response(bodyOf(chunk!));
};

const chunksOn = (network: Network, cache: ChunkCache | null = null): Chunks => {
  return new Chunks(new Gateway("https://gateway.example/", network), () => 0, Promise.resolve(cache));
};

const quiet = (t: TestContext): string[] => {
  const said: string[] = [];
  t.mock.method(console, "warn", (message: string) => said.push(message));
  t.mock.method(console, "debug", () => {});
  return said;
};

test("a chunk comes from the gateway by its name, once", async () => {
  const network = new FakeNetwork(whole);
  const chunks = chunksOn(network);
  for (let epoch = 0; epoch < 2; epoch++) assert.deepEqual([...(await chunks.get(WELCOME, grantOf(3))).arrays[0]!], [3, 1, 2, 3]);
  assert.deepEqual(network.asked, [`${AT_GATEWAY}${nameOf(3)} default`]);
  assert.equal(chunks.bytes, 4);
});

test("a chunk without a name comes by its index, as it is", async () => {
  const network = new FakeNetwork(whole);
  const chunk = await chunksOn(network).get(ON_CDN, { ...grantOf(3), sha256: null });
  assert.deepEqual([...chunk.arrays[0]!], [3, 1, 2, 3]);
  assert.deepEqual(network.asked, [`${AT_GATEWAY}3 default`]);
});

test("a chunk that is not what its name says is asked for anew, past the browser's HTTP cache", async () => {
  const network = new FakeNetwork((url, attempt) => (attempt < 3 ? new Response(bodyOf(9)) : whole(url, attempt)));
  assert.deepEqual([...(await chunksOn(network).get(WELCOME, grantOf(3))).arrays[0]!], [3, 1, 2, 3]);
  const address = `${AT_GATEWAY}${nameOf(3)}`;
  assert.deepEqual(network.asked, [`${address} default`, `${address} reload`, `${address} reload`]);
});

test("a chunk that never is what its name says is given up with a reason", async () => {
  const network = new FakeNetwork(() => new Response(bodyOf(9)));
  const expected = `chunk 3 of https://gateway.example/ expects the SHA-256 ${nameOf(3)}, got ${nameOf(9)}`;
  await assert.rejects(chunksOn(network).get(WELCOME, grantOf(3)), new DamagedError(expected));
  assert.equal(network.asked.length, 4);
});

test("the author's server is asked first, and the gateway for nothing", async () => {
  const network = new FakeNetwork(whole);
  assert.deepEqual([...(await chunksOn(network).get(ON_CDN, grantOf(3))).arrays[0]!], [3, 1, 2, 3]);
  assert.deepEqual(network.asked, [`${CDN}${nameOf(3)} default`]);
});

const failures: [string, Answer][] = [
  ["404", () => new Response("", { status: 404 })],
  ["CORS", () => Promise.reject(new TypeError("Failed to fetch"))],
  ["wrong bytes", () => new Response(bodyOf(9))],
];

for (const [what, fail] of failures) {
  test(`where the author's server fails the gateway is asked, which is said once: ${what}`, async (t) => {
    const said = quiet(t);
    const network = new FakeNetwork((url, attempt) => (url.startsWith(CDN) ? fail : whole)(url, attempt));
    const chunks = chunksOn(network);
    for (let chunk = 0; chunk < 5; chunk++) assert.equal((await chunks.get(ON_CDN, grantOf(chunk))).arrays[0]![0], chunk);
    assert.equal(said.length, 1);
    assert.match(said[0]!, /^Chunks cannot be had from https:\/\/cdn\.example\/digits\/, and come from the gateway: /);
    // After three failures in a row it is left alone.
    assert.equal(network.asked.filter((each) => each.startsWith(CDN)).length, 3);
    assert.equal(network.asked.filter((each) => each.startsWith(AT_GATEWAY)).length, 5);
  });
}

test("a single chunk that the author's server lacks does not turn it away", async (t) => {
  quiet(t);
  const missing = `${CDN}${nameOf(1)}`;
  const network = new FakeNetwork((url, attempt) => (url === missing ? new Response("", { status: 404 }) : whole(url, attempt)));
  const chunks = chunksOn(network);
  for (let chunk = 0; chunk < 5; chunk++) await chunks.get(ON_CDN, grantOf(chunk));
  assert.deepEqual(network.asked.filter((each) => each.startsWith(AT_GATEWAY)), [`${AT_GATEWAY}${nameOf(1)} default`]);
});

test("in a sandbox nobody but the gateway is asked", async () => {
  const network = new FakeNetwork(whole, false);
  await chunksOn(network).get(ON_CDN, grantOf(3));
  assert.deepEqual(network.asked, [`${AT_GATEWAY}${nameOf(3)} default`]);
});

test("what the browser keeps is not asked for by another replica, nor kept twice", async (t) => {
  const cache = await cacheOf(t, new FakeCache());
  const [first, second] = [new FakeNetwork(whole), new FakeNetwork(whole)];
  await chunksOn(first, cache).get(WELCOME, grantOf(3));
  await cache!.put(nameOf(4), bodyOf(4).buffer);
  for (const chunk of [3, 4]) {
    // A job that was submitted again has the same chunks under another run.
    const found = await chunksOn(second, cache).get({ ...WELCOME, run: "000000000002" }, grantOf(chunk));
    assert.equal(found.arrays[0]![0], chunk);
  }
  assert.deepEqual([first.asked, second.asked], [[`${AT_GATEWAY}${nameOf(3)} no-store`], []]);
});

test("what somebody has changed in the browser's cache is not taken", async (t) => {
  const fake = new FakeCache();
  const cache = await cacheOf(t, fake);
  await cache!.put(nameOf(3), bodyOf(3).buffer);
  for (const body of fake.kept.values()) body[0] = 9;
  const network = new FakeNetwork(whole);
  assert.equal((await chunksOn(network, cache).get(WELCOME, grantOf(3))).arrays[0]![0], 3);
  assert.equal(network.asked.length, 1);
});

test("the browser's cache keeps no more than its bytes", async (t) => {
  const fake = new FakeCache();
  const cache = await cacheOf(t, fake, 10);
  await Promise.all([1, 2, 3].map((chunk) => cache!.put(nameOf(chunk), bodyOf(chunk).buffer)));
  assert.deepEqual([...fake.kept.values()].map((body) => body[0]), [2, 3]);
  await cache!.put(nameOf(4), new ArrayBuffer(11));
  assert.equal(fake.kept.size, 2);
});

test("what other tabs keep is counted", async (t) => {
  const fake = new FakeCache();
  const [one, other] = [await cacheOf(t, fake, 40), await cacheOf(t, fake, 40)];
  for (let chunk = 0; chunk < 10; chunk++) await one!.put(nameOf(chunk), bodyOf(chunk).buffer);
  await other!.put(nameOf(10), bodyOf(10).buffer);
  assert.deepEqual([fake.kept.size, [...fake.kept.values()].at(-1)![0]], [10, 10]);
});

test("a disk without room costs no chunk", async (t) => {
  quiet(t);
  const fake = Object.assign(new FakeCache(), { isFull: true });
  const cache = await cacheOf(t, fake);
  const network = new FakeNetwork(whole);
  for (const chunk of [1, 2]) assert.equal((await chunksOn(network, cache).get(WELCOME, grantOf(chunk))).arrays[0]![0], chunk);
  await cache!.put(nameOf(3), bodyOf(3).buffer);
  assert.equal(fake.kept.size, 0);
});

test("where asking for the browser's cache throws, there is none", async (t) => {
  const get = (): never => {
    throw new DOMException("sandboxed", "SecurityError");
  };
  Object.defineProperty(globalThis, "caches", { get, configurable: true });
  t.after(() => Reflect.deleteProperty(globalThis, "caches"));
  assert.equal(await ChunkCache.open(() => 0), null);
});

test("a browser without a cache has none", async () => {
  assert.equal(await ChunkCache.open(() => 0), null);
});
