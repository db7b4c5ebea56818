// A runner on sockets, timers and executors that a test holds in its hand.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { Executor } from "../src/executor/executor";
import { Kind, pack } from "../src/frames";
import type { Program } from "../src/program";
import { Gateway, UnreachableError } from "../src/replica/gateway";
import { Reporter } from "../src/replica/reporter";
import { Runner } from "../src/replica/runner";
import { Immediate } from "./immediate";

const WELCOME = {
  type: "welcome", job: "digits", run: "000000000001", replica: "67414f80a1b2c3d4", state: "running", program: "/first",
  parameters: [{ name: "w", shape: [1], offset: 0 }], shards: [{ offset: 0, size: 1 }],
  batch: { rows: 1, arrays: [{ name: "x", dtype: "float32", shape: [] }] },
  training: { n_push: 1, n_fetch: 1, local_learning_rate: 0.5, max_accumulate: 3, max_ahead: 2, push_codec: "f32", fetch_codec: "f32", seed: 0 },
  applied: [0], credit: 1, max_frame_bytes: 1 << 20, features: ["dropped", "wide"],
};

class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = FakeSocket.OPEN;
  onopen = (): void => {};
  onclose = (_: { code: number }): void => {};
  onmessage = (_: { data: string | ArrayBuffer }): void => {};
  /** How many frames were sent here. */
  frames = 0;

  constructor() {
    FakeSocket.all.push(this);
  }

  send(data: string | Uint8Array): void {
    if (typeof data !== "string") this.frames += 1;
  }

  close(): void {}

  welcome(changes: object): void {
    this.onopen();
    this.tell({ ...WELCOME, ...changes });
  }

  tell(message: object): void {
    this.onmessage({ data: JSON.stringify(message) });
  }

  /** The only value of the only shard, at a version. */
  parameters(version: number): void {
    const header = { kind: Kind.PARAMETERS, codec: 0, shard: 0, count: 1, sequence: 0, version, loss: 0, rows: 0, minibatches: 0 };
    this.onmessage({ data: pack({ ...header, payload: new Uint8Array(4) }).buffer });
  }
}

interface Download { readonly path: string; readonly resolve: (program: Program) => void; readonly reject: (error: Error) => void }

/** Programs come when the test says so. */
class SlowGateway extends Gateway {
  readonly downloads: Download[] = [];

  override program(path: string): Promise<Program> {
    return new Promise((resolve, reject) => this.downloads.push({ path, resolve, reject }));
  }
}

/** Everything that is due now has run. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Time passes: longer than any pause. */
async function passTime(t: TestContext): Promise<void> {
  t.mock.timers.tick(31_000);
  await settled();
}

function start(t: TestContext) {
  FakeSocket.all = [];
  t.mock.timers.enable({ apis: ["setTimeout"] });
  t.mock.method(console, "warn", () => {});
  t.mock.method(console, "error", () => {});
  const { WebSocket, MessageChannel } = globalThis;
  Object.assign(globalThis, { WebSocket: FakeSocket, MessageChannel: Immediate });
  t.after(() => Object.assign(globalThis, { WebSocket, MessageChannel }));
  const disposed: string[] = [];
  t.mock.method(Executor, "create", async (program: unknown) => ({ dispose: () => disposed.push(String(program)) }));
  const states: string[] = [];
  const gateway = new SlowGateway("http://gateway/");
  const reporter = new Reporter({ state: ({ state }) => states.push(state), progress: () => {} });
  const runner = new Runner(gateway, "digits", "wasm", reporter, () => {});
  return { runner, gateway, states, disposed, ended: runner.run() };
}

const named = (name: string): Program => name as unknown as Program;

test("a replica waits for its program as long as the service is away", async (t) => {
  const { runner, gateway, states, ended } = start(t);
  FakeSocket.all[0]!.welcome({});
  for (let attempt = 0; attempt < 10; attempt++) {
    gateway.downloads[attempt]!.reject(new UnreachableError("got 503"));
    await settled();
    await passTime(t);
  }
  assert.deepEqual([gateway.downloads.length, new Set(states)], [11, new Set(["preparing", "connecting"])]);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
  gateway.downloads[10]!.reject(new UnreachableError("got 503"));
  await settled();
  await passTime(t);
  assert.deepEqual([gateway.downloads.length, states.at(-1)], [11, "stopped"]);
});

test("a job that ends while its program is fetched is reported as finished", async (t) => {
  const { gateway, states, ended } = start(t);
  FakeSocket.all[0]!.welcome({});
  FakeSocket.all[0]!.onmessage({ data: JSON.stringify({ type: "finished", reason: "until" }) });
  gateway.downloads[0]!.resolve(named("first"));
  await settled();
  await passTime(t);
  await ended;
  assert.equal(states.at(-1), "finished");
});

test("a slow preparation of an old run neither replaces the executor of the new run nor ends it", async (t) => {
  const { runner, gateway, states, disposed, ended } = start(t);
  const compiling: (() => void)[] = [];
  t.mock.method(Executor, "create", async (program: unknown) => {
    await new Promise<void>((resolve) => compiling.push(resolve));
    return { dispose: () => disposed.push(String(program)) };
  });
  FakeSocket.all[0]!.welcome({});
  gateway.downloads[0]!.resolve(named("first"));
  await settled();
  FakeSocket.all[0]!.onclose({ code: 1012 });
  await passTime(t);
  FakeSocket.all[1]!.welcome({ run: "000000000002", program: "/second" });
  gateway.downloads[1]!.resolve(named("second"));
  await settled();
  compiling[1]!();
  await settled();
  compiling[0]!();
  await settled();
  assert.deepEqual(disposed, ["first"]);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
  assert.deepEqual(disposed, ["first", "second"]);
  assert.ok(!states.includes("failed"));
});

test("a malformed frame makes a replica come back as a new one, with the program that it has, and not for ever", async (t) => {
  const { gateway, states, ended } = start(t);
  for (let refusals = 0; refusals < 6; refusals++) {
    assert.equal(FakeSocket.all.length, refusals + 1);
    FakeSocket.all[refusals]!.welcome({ replica: `67414f80a1b2c3d${refusals}` });
    gateway.downloads[0]!.resolve(named("first"));
    await settled();
    assert.ok(!states.includes("failed"));
    FakeSocket.all[refusals]!.onclose({ code: 4005 });
    await settled();
    await passTime(t);
  }
  await ended;
  assert.deepEqual([FakeSocket.all.length, gateway.downloads.length, states.at(-1)], [6, 1, "failed"]);
});

test("a gradient that is computed while the identity expires is not pushed under the next one", async (t) => {
  const { runner, gateway, ended } = start(t);
  const computing: (() => void)[] = [];
  t.mock.method(Executor, "create", async () => ({
    step: () => new Promise<number>((resolve) => computing.push(() => resolve(1))), dispose: () => {},
  }));
  t.mock.method(gateway, "chunk", async () => new ArrayBuffer(8));
  const grant = { lease: 1, epoch: 0, chunk: 0, rows: 2, seconds: 60, sha256: null };
  const begin = async (socket: FakeSocket, changes: object): Promise<void> => {
    socket.welcome({ credit: 4, ...changes });
    socket.parameters(4);
    socket.tell({ type: "leased", leases: [grant] });
    await settled();
  };
  await begin(FakeSocket.all[0]!, {});
  gateway.downloads[0]!.resolve(named("first"));
  await settled();
  computing[0]!();
  await settled();
  // The second minibatch is being computed when the answer to the first one comes.
  assert.deepEqual([computing.length, FakeSocket.all[0]!.frames], [2, 1]);
  FakeSocket.all[0]!.tell({ type: "ack", shard: 0, sequence: 1, status: "rejected", reason: "expired" });
  await passTime(t);
  await begin(FakeSocket.all[1]!, { replica: "67414f80ffffffff" });
  computing[1]!();
  await settled();
  assert.equal(FakeSocket.all[1]!.frames, 0);
  computing[2]!();
  await settled();
  assert.deepEqual(FakeSocket.all.map(({ frames }) => frames), [1, 1]);
  const stopped = runner.stop();
  computing[3]!();
  await passTime(t);
  await Promise.all([stopped, ended]);
});

test("a line on which the welcome never comes is given up, and another is tried", async (t) => {
  const { runner, ended } = start(t);
  FakeSocket.all[0]!.onopen();
  t.mock.timers.tick(29_500);
  await settled();
  assert.equal(FakeSocket.all.length, 1);
  await passTime(t);
  await passTime(t);
  assert.equal(FakeSocket.all.length, 2);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
});

test("a line on which nothing is due may be silent for ever", async (t) => {
  const { runner, ended } = start(t);
  FakeSocket.all[0]!.welcome({});
  for (let minutes = 0; minutes < 5; minutes++) await passTime(t);
  assert.equal(FakeSocket.all.length, 1);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
});

test("a replica that was offline for long connects within a second of being online, and backs off anew", async (t) => {
  const { runner, ended } = start(t);
  for (let failure = 0; failure < 8; failure++) {
    FakeSocket.all.at(-1)!.onclose({ code: 1006 });
    if (failure < 7) await passTime(t);
  }
  assert.equal(FakeSocket.all.length, 8);
  runner.online();
  t.mock.timers.tick(1000);
  await settled();
  assert.equal(FakeSocket.all.length, 9);
  // It fails once more, as DNS does for a moment: the next attempt is not half a minute away either.
  FakeSocket.all.at(-1)!.onclose({ code: 1006 });
  t.mock.timers.tick(1000);
  await settled();
  assert.equal(FakeSocket.all.length, 10);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
});

test("a pause that the gateway asks for comes before the random one, also for who was offline", async (t) => {
  const { runner, ended } = start(t);
  const socket = FakeSocket.all[0]!;
  socket.onopen();
  socket.onmessage({ data: JSON.stringify({ type: "error", code: 1013, message: "crowded", retry_seconds: 20 }) });
  socket.onclose({ code: 1013 });
  runner.online();
  t.mock.timers.tick(19_999);
  await settled();
  assert.equal(FakeSocket.all.length, 1);
  t.mock.timers.tick(1);
  await settled();
  t.mock.timers.tick(1000);
  await settled();
  assert.equal(FakeSocket.all.length, 2);
  const stopped = runner.stop();
  await passTime(t);
  await Promise.all([stopped, ended]);
});
