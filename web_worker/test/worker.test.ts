import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Replica } from "../src/worker";

/** Stands in for a browser's Worker. */
class FakeWorker {
  static all: FakeWorker[] = [];
  onmessage: (event: { data: { type: string; [field: string]: unknown } }) => void = () => undefined;
  onerror: () => void = () => undefined;
  isTerminated = false;

  constructor(readonly address: string) {
    FakeWorker.all.push(this);
  }

  readonly heard: string[] = [];
  readonly asked: { key: number; rows: unknown }[] = [];
  raw: unknown;
  trains: boolean | undefined;
  runsModules = false;

  postMessage({ type, runsModules, trains, ...rest }: { type: string; runsModules?: boolean; trains?: boolean }): void {
    this.heard.push(type);
    this.trains ??= trains;
    if (type === "predict") this.asked.push(rest as { key: number; rows: unknown });
    if (type === "raw") this.raw = (rest as { data?: unknown }).data;
    this.runsModules ||= runsModules ?? false;
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

const revoked: string[] = [];

/** Stands in for the page's window. */
let page = new EventTarget();

beforeEach(() => {
  FakeWorker.all = [];
  revoked.length = 0;
  page = new EventTarget();
  Object.assign(globalThis, {
    Worker: FakeWorker,
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
  });
  URL.revokeObjectURL = (address) => void revoked.push(address);
});

test("a replica that is stopped before its start does not start", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  replica.stop();
  await replica.start();
  assert.equal(FakeWorker.all.length, 0);
  assert.equal(replica.state.state, "stopped");
});

test("a worker that cannot be loaded is told, ended, and its address forgotten", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const started = replica.start();
  const [worker] = FakeWorker.all;
  worker!.onerror();
  await assert.rejects(started, /could not be loaded/);
  assert.equal(replica.state.state, "failed");
  assert.ok(worker!.isTerminated);
  assert.deepEqual(revoked, [worker!.address]);
});

test("a replica that has ended is not stopped once more", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const started = replica.start();
  FakeWorker.all[0]!.onerror();
  await assert.rejects(started);
  replica.stop();
  assert.equal(replica.state.state, "failed");
});

test("a page that is online again tells its worker, as long as it has one", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const started = replica.start();
  const [worker] = FakeWorker.all;
  page.dispatchEvent(new Event("online"));
  worker!.onerror();
  await assert.rejects(started);
  page.dispatchEvent(new Event("online"));
  assert.deepEqual(worker!.heard, ["start", "online"]);
});

/** Stands in for a frame, and for the page's document. */
class FakeFrame {
  static all: FakeFrame[] = [];
  readonly attributes: Record<string, string> = {};
  readonly style: Record<string, string> = {};
  srcdoc = "";
  isThere = false;

  setAttribute(name: string, value: string): void {
    this.attributes[name] = value;
  }

  remove(): void {
    this.isThere = false;
  }

  static install(): void {
    FakeFrame.all = [];
    const createElement = (): FakeFrame => {
      FakeFrame.all.push(new FakeFrame());
      return FakeFrame.all.at(-1)!;
    };
    Object.assign(globalThis, { document: { createElement, body: { append: (frame: FakeFrame) => void (frame.isThere = true) } } });
  }
}

const module = { data: { type: "module" } };

test("a page of another origin runs a model that is a module in a sandbox only", async (t) => {
  FakeFrame.install();
  Object.assign(globalThis, { origin: "https://page.example" });
  const replica = new Replica({ url: "https://gateway.example/here" });
  const started = replica.start();
  const [worker] = FakeWorker.all;
  assert.equal(worker!.runsModules, false);
  worker!.onmessage(module);
  assert.ok(worker!.isTerminated);
  const [frame] = FakeFrame.all;
  assert.ok(frame!.isThere);
  // allow-same-origin would give the model the page's origin back.
  assert.equal(frame!.attributes["sandbox"], "allow-scripts");
  assert.match(frame!.srcdoc, /default-src 'none'; script-src https:\/\/gateway\.example blob: 'wasm-unsafe-eval'; worker-src blob:; connect-src blob: data:"/);
  assert.match(frame!.srcdoc, /<script src="https:\/\/gateway\.example\/here\/assets\/sandbox-frame\.js">/);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  replica.stop();
  t.mock.timers.tick(1000);
  await started;
  assert.ok(!frame!.isThere);
});

test("a replica that is stopped opens no sandbox any more", () => {
  FakeFrame.install();
  const replica = new Replica({ url: "https://gateway.example" });
  void replica.start();
  replica.stop();
  FakeWorker.all[0]!.onmessage(module);
  assert.equal(FakeFrame.all.length, 0);
});

for (const [origin, sandbox, runsModules] of [
  ["https://gateway.example", undefined, true], ["https://gateway.example", true, false], ["https://page.example", undefined, false],
  ["https://page.example", false, true], ["http://gateway.example", undefined, false], ["https://gateway.example:8443", undefined, false],
] as const) {
  test(`a page of ${origin} whose sandbox is ${sandbox} ${runsModules ? "runs modules itself" : "runs no modules itself"}`, () => {
    Object.assign(globalThis, { origin });
    const replica = new Replica({ url: "https://gateway.example", ...(sandbox === undefined ? {} : { sandbox }) });
    void replica.start();
    replica.stop();
    assert.equal(FakeWorker.all[0]!.runsModules, runsModules);
  });
}

test("raw items are told to the worker in their order, those of before the start too, and resolve when answered", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const answers = [replica.sendRaw({ a: 1 }), replica.sendRaw(Uint8Array.of(7))];
  void replica.start();
  const [worker] = FakeWorker.all;
  answers.push(replica.sendRaw(null));
  assert.deepEqual(worker!.heard, ["start", "raw", "raw", "raw"]);
  const discarded = { status: "discarded", rows: 0, why: null };
  const hear = (data: object): void => worker!.onmessage({ data: data as { type: string } });
  for (const key of [1, 2, 3]) hear({ type: "answered", key, outcome: discarded });
  assert.deepEqual(await Promise.all(answers), [discarded, discarded, discarded]);
});

test("raw items without an answer are given up when the replica ends", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const answer = replica.sendRaw(1);
  const started = replica.start();
  const [worker] = FakeWorker.all;
  worker!.onerror();
  await assert.rejects(started);
  await assert.rejects(answer, /The replica ended before the item was answered: The worker could not be loaded/);
  await assert.rejects(replica.sendRaw(2), /The replica has ended/);
});

test("half a character in a raw item is sent as one that stands for it", () => {
  const replica = new Replica({ url: "http://gateway.example" });
  void replica.sendRaw({ "\ud83d": "a\udc00b", kept: "\\ud83d \\\\ud83d 😀 \n" }).catch(() => undefined);
  void replica.start();
  replica.stop();
  const sent = JSON.parse(FakeWorker.all[0]!.raw as string) as object;
  assert.deepEqual(sent, { "\ufffd": "a\ufffdb", kept: "\\ud83d \\\\ud83d 😀 \n" });
});

test("what is neither bytes nor JSON is no raw item", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  await assert.rejects(replica.sendRaw(undefined), /a raw item is bytes or a JSON value, got undefined/);
});

test("what a page asks reaches its worker as it was, and the answer the page", async () => {
  const replica = new Replica({ url: "http://gateway.example", train: false });
  const x = Float32Array.of(1, 2);
  const early = replica.predict({ x });
  x[0] = 9;
  void replica.start();
  const [worker] = FakeWorker.all;
  assert.equal(worker!.trains, false);
  assert.deepEqual(worker!.asked, [{ key: 1, rows: { x: Float32Array.of(1, 2) } }]);
  const refused = replica.predict({ x: [3] });
  const results = { prediction: { shape: [1], data: Float32Array.of(5) } };
  worker!.onmessage({ data: { type: "unpredicted", key: 2, reason: "input", message: "predict expects 2 numbers, got 1" } });
  worker!.onmessage({ data: { type: "predicted", key: 1, results } });
  assert.deepEqual(await early, results);
  await assert.rejects(refused, { name: "PredictionError", reason: "input", message: "predict expects 2 numbers, got 1" });
});

test("what a page has asked is asked again of the sandbox that takes its worker's place", async (t) => {
  FakeFrame.install();
  const told: string[] = [];
  t.mock.method(MessagePort.prototype, "postMessage", ({ type }: { type: string }) => told.push(type));
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const replica = new Replica({ url: "http://gateway.example" });
  void replica.start();
  const asked = replica.predict({ x: [1] });
  FakeWorker.all[0]!.onmessage(module);
  assert.deepEqual(told, ["start", "predict"]);
  replica.stop();
  t.mock.timers.tick(1000);
  await assert.rejects(asked, { reason: "ended" });
});

test("a replica that ends, or cannot copy what it is asked, gives no answer", async () => {
  const replica = new Replica({ url: "http://gateway.example" });
  const started = replica.start();
  const open = replica.predict({ x: [1] });
  await assert.rejects(replica.predict({ x: [() => 1] } as never), { reason: "input", message: "predict expects arrays of numbers by name, got what cannot be copied" });
  FakeWorker.all[0]!.onerror();
  await assert.rejects(started);
  const ended = { reason: "ended", message: /got one that has ended: The worker could not be loaded/ };
  await assert.rejects(open, ended);
  await assert.rejects(replica.predict({ x: [1] }), ended);
});
