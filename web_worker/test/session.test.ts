// The conversation, without a socket: texts and frames go in, actions come out.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BY_NAME } from "../src/codecs";
import { Kind, pack, unpack, type Frame } from "../src/frames";
import type { FromReplica, Welcome } from "../src/protocol";
import type { Action } from "../src/replica/actions";
import { readChunk } from "../src/replica/batches";
import { Random } from "../src/replica/random";
import { Session } from "../src/replica/session";

const WELCOME: Welcome = {
  type: "welcome", job: "digits", run: "3f0c5a9d2b11", replica: "67414f80a1b2c3d4", state: "running", program: "/p", model: "program", predict: null,
  parameters: [{ name: "w", shape: [3], offset: 0 }], shards: [{ offset: 0, size: 2 }, { offset: 2, size: 1 }],
  batch: { rows: 2, arrays: [{ name: "x", dtype: "float32", shape: [] }] },
  training: { n_push: 1, n_fetch: 1, local_learning_rate: 0.5, max_accumulate: 3, max_ahead: 2, push_codec: "f32", fetch_codec: "f32", seed: 0, clip_value: null, clip_norm: null },
  applied: [0, 0], credit: 1, max_frame_bytes: 1 << 20, contents: null, chunk_url: null, stream: null, features: ["dropped", "wide"],
};

/** A session with a clock, and what it wants sent. */
class Stage {
  readonly session = new Session("wasm", new Random(1));
  now = 0;
  actions: Action[] = [];

  tell(message: object): this {
    this.actions.push(...this.session.receiveText(JSON.stringify(message), this.now));
    return this;
  }

  welcome(changes: Partial<Welcome> = {}): this {
    return this.tell({ ...WELCOME, ...changes });
  }

  parameters(shard: number, version: number, values: number[]): this {
    const payload = BY_NAME.f32.encode(Float32Array.from(values), new Float32Array(0));
    const header = { kind: Kind.PARAMETERS, codec: 0, shard, count: values.length, sequence: 0, version, loss: 0, rows: 0, minibatches: 0 };
    this.session.receiveFrame(pack({ ...header, payload }).buffer);
    return this;
  }

  chunk(lease: number, rows: number): this {
    const grant = { lease, epoch: 0, chunk: 0, rows, seconds: 60, sha256: null };
    this.tell({ type: "leased", leases: [grant] });
    this.session.chunkLoaded(WELCOME.run, grant, readChunk(new ArrayBuffer(4 * rows), rows, WELCOME.batch));
    return this;
  }

  /** Trains one minibatch with the given gradient; false when there is none to train. */
  step(gradient = [1, 2, 3], loss = 1): boolean {
    const { batch, actions } = this.session.next(this.now);
    this.actions.push(...actions);
    if (batch) this.actions.push(...this.session.training!.stepped(batch, loss, Float32Array.from(gradient), this.now));
    return batch !== null;
  }

  ack(shard: number, sequence: number, status = "accepted", more = {}): this {
    return this.tell({ type: "ack", shard, sequence, status, ...more });
  }

  messages(): FromReplica[] {
    return this.actions.flatMap((action) => (action.do === "send" ? [action.message] : []));
  }

  frames(): Frame[] {
    return this.actions.flatMap((action) => (action.do === "sendFrame" ? [unpack(action.bytes)] : []));
  }

  clear(): this {
    this.actions = [];
    return this;
  }
}

/** A session that can train: welcome, program, parameters at versions 4 and 7, and a chunk of `rows` rows. */
function ready(rows = 20, changes: Partial<Welcome> = {}): Stage {
  const stage = new Stage().welcome(changes);
  stage.session.prepared(WELCOME.run);
  return stage.parameters(0, 4, [10, 20]).parameters(1, 7, [30]).chunk(1, rows).clear();
}

const dones = (stage: Stage): string[] => stage.actions.map((action) => action.do);

const NEW = { type: "hello", protocol: 1, replica: null, run: null, backend: "wasm", features: ["unleased"], leases: [] };

test("a new replica says hello with nothing, a known one with its identity", () => {
  const stage = new Stage();
  assert.deepEqual(stage.session.hello(), NEW);
  stage.welcome();
  assert.deepEqual(stage.session.hello(), {
    type: "hello", protocol: 1, replica: WELCOME.replica, run: WELCOME.run, backend: "wasm", features: ["unleased"], leases: [],
  });
});

test("after the welcome it prepares the program, fetches every shard and asks for two chunks", () => {
  const stage = new Stage().welcome();
  assert.equal(dones(stage)[0], "prepare");
  assert.deepEqual(stage.messages(), [{ type: "fetch", have: [-1, -1] }, { type: "lease", count: 2 }]);
});

test("nothing is trained before program, every shard and a chunk are there", () => {
  const stage = new Stage().welcome();
  assert.equal(stage.step(), false);
  stage.chunk(1, 20).parameters(0, 4, [1, 2]);
  assert.equal(stage.step(), false);
  stage.parameters(1, 7, [3]);
  assert.equal(stage.step(), false);
  stage.session.prepared(WELCOME.run);
  assert.equal(stage.step(), true);
});

test("a gradient goes out as one frame a shard, with the version it was computed from", () => {
  const stage = ready();
  stage.step([1, 2, 3], 2.5);
  const frames = stage.frames();
  assert.deepEqual(frames.map(({ shard, version, sequence, rows, minibatches, loss }) => [shard, version, sequence, rows, minibatches, loss]),
    [[0, 4, 1, 2, 1, 2.5], [1, 7, 1, 2, 1, 2.5]]);
  assert.deepEqual([...new Float32Array(frames[0]!.payload.slice().buffer)], [1, 2]);
});

test("without knowing how far the service moves there is no local step", () => {
  const stage = ready(20, { credit: 2 });
  stage.step([1, 2, 3]);
  stage.step([0, 0, 0]);
  assert.deepEqual([...stage.session.training!.parameters.values], [10, 20, 30]);
});

test("a local step goes no farther than the service moves a shard for a version", () => {
  const stage = ready(40, { credit: 4, training: { ...WELCOME.training, max_ahead: 9 } });
  stage.step([0, 0, 0]);
  // Two versions of shard 0, over a distance of 5; shard 1 moves by 0.25 in one.
  stage.parameters(0, 6, [13, 24]).parameters(1, 8, [30.25]);
  stage.step([30, 40, 0.25]);
  stage.step([0, 0, 0]);
  // Plain steps would be (15, 20) and 0.125: the first is cut to 2.5, the second is short enough.
  assert.deepEqual([...stage.session.training!.parameters.values], [11.5, 22, 30.125]);
});

test("a local step of one minibatch of n_push is their part of what the service moves", () => {
  const stage = ready(40, { credit: 4, training: { ...WELCOME.training, max_ahead: 9, n_push: 2 } });
  stage.step([0, 0, 0]);
  stage.parameters(0, 5, [13, 24]);
  stage.step([30, 40, 0]);
  stage.step([0, 0, 0]);
  assert.deepEqual([...stage.session.training!.parameters.values], [11.5, 22, 30]);
});

test("a shard that is replaced before the next minibatch takes no local step; the other one does", () => {
  const stage = ready(40, { credit: 4, training: { ...WELCOME.training, max_ahead: 9 } });
  stage.parameters(0, 4, [10, 20]).step([0, 0, 0]);
  stage.parameters(0, 5, [13, 24]).parameters(1, 8, [31]);
  stage.step([30, 40, 8]);
  stage.parameters(0, 6, [100, 200]);
  stage.step([0, 0, 0]);
  assert.deepEqual([...stage.session.training!.parameters.values], [100, 200, 30]);
  assert.deepEqual(stage.session.training!.parameters.versions, [6, 8]);
});

test("parameters are adopted only every n_fetch steps", () => {
  const stage = ready(20, { credit: 4, training: { ...WELCOME.training, n_fetch: 2 } });
  stage.step([0, 0, 0]);
  stage.parameters(0, 5, [100, 200]);
  stage.step([0, 0, 0]);
  assert.equal(stage.session.training!.parameters.values[0], 10);
  stage.step([0, 0, 0]);
  assert.equal(stage.session.training!.parameters.values[0], 100);
});

test("without credit the minibatch that completes a push is computed only when the answer is here", () => {
  const stage = ready(20, { training: { ...WELCOME.training, n_push: 2 } });
  assert.deepEqual([stage.step(), stage.step()], [true, true]);
  stage.clear();
  assert.deepEqual([stage.step(), stage.step()], [true, false]);
  stage.ack(0, 1).ack(1, 1);
  assert.equal(stage.step(), true);
  assert.deepEqual(stage.frames().map(({ sequence, minibatches }) => [sequence, minibatches]), [[2, 2], [2, 2]]);
});

test("while a shard is busy gradients are summed, up to max_accumulate, then training waits", () => {
  const stage = ready();
  stage.step();
  stage.ack(1, 1).ack(0, 1, "busy", { retry_seconds: 0.25 }).clear();
  assert.deepEqual([stage.step(), stage.step(), stage.step(), stage.step()], [true, true, true, false]);
  stage.now = 250;
  stage.actions.push(...stage.session.tick(stage.now));
  stage.clear().ack(0, 1);
  assert.deepEqual(stage.frames().map(({ sequence, minibatches }) => [sequence, minibatches]), [[2, 3], [2, 3]]);
});

test("n_push minibatches make one push", () => {
  const stage = ready(20, { training: { ...WELCOME.training, n_push: 2 } });
  stage.step([1, 1, 1]);
  assert.deepEqual(stage.frames(), []);
  stage.step([2, 2, 2]);
  assert.deepEqual([...new Float32Array(stage.frames()[1]!.payload.slice().buffer)], [3]);
});

test("a busy frame is sent again, the same, when its time has come", () => {
  const stage = ready();
  stage.step();
  const [first] = stage.frames();
  stage.clear().ack(1, 1).ack(0, 1, "busy", { retry_seconds: 0.25 });
  assert.equal(stage.session.tickAtMilliseconds, 250);
  stage.actions.push(...stage.session.tick(stage.now));
  assert.deepEqual(stage.frames(), []);
  stage.actions.push(...stage.session.tick(250));
  assert.deepEqual(stage.frames(), [first]);
});

test("a lease is reported as trained when the gradients of all its rows are answered", () => {
  const stage = ready(4);
  stage.step();
  stage.ack(0, 1).ack(1, 1);
  stage.step();
  assert.deepEqual(stage.messages().filter(({ type }) => type === "trained"), []);
  stage.ack(0, 2);
  stage.ack(1, 2, "duplicate");
  assert.deepEqual(stage.messages().filter(({ type }) => type === "trained"), [{ type: "trained", lease: 1 }]);
});

test("the last rows are trained and pushed when no chunk is free, however few", () => {
  const stage = ready(3, { training: { ...WELCOME.training, n_push: 10 } });
  assert.equal(stage.step(), true);
  assert.equal(stage.step(), false);
  stage.tell({ type: "wait", seconds: 1 });
  assert.equal(stage.step(), true);
  assert.deepEqual(stage.frames().map(({ rows, minibatches }) => [rows, minibatches]), [[3, 2], [3, 2]]);
  stage.ack(0, 1).ack(1, 1);
  assert.deepEqual(stage.messages().at(-1), { type: "trained", lease: 1 });
});

test("a gateway that is busy at the door says when to come again", () => {
  const stage = ready();
  stage.tell({ type: "error", code: 1013, message: "too many", retry_seconds: 3 });
  assert.deepEqual(stage.session.closed(1013), [{ do: "reconnect", atLeastSeconds: 3 }]);
  // The next gateway, which says nothing, is not waited for.
  assert.deepEqual(stage.session.closed(1006), [{ do: "reconnect", atLeastSeconds: 0 }]);
});

test("a reconnect under the same identity sends again what is not applied, and asks anew", () => {
  const stage = ready(20, { credit: 2 });
  stage.step();
  stage.step();
  assert.deepEqual(stage.session.closed(1006).map((action) => action.do), ["reconnect"]);
  stage.clear().welcome({ credit: 2, applied: [1, 2] });
  assert.deepEqual(stage.frames().map(({ shard, sequence }) => [shard, sequence]), [[0, 2]]);
  assert.deepEqual(stage.messages(), [{ type: "fetch", have: [4, 7] }, { type: "lease", count: 1 }]);
});

test("gradients go on being summed while the socket is away", () => {
  const stage = ready();
  stage.step();
  stage.session.closed(1006);
  assert.deepEqual([stage.step(), stage.step(), stage.step(), stage.step()], [true, true, true, false]);
});

test("nothing is said between a close and the next welcome: an earlier frame is resent before a later one goes out", () => {
  const stage = ready(20, { credit: 4 });
  stage.step();
  const [first] = stage.frames();
  stage.session.closed(1006);
  stage.clear().parameters(0, 5, [1, 2]);
  // The next socket is open and hello is said, but the gateway has not answered yet.
  assert.equal(stage.step(), true);
  assert.equal(stage.step(), true);
  stage.actions.push(...stage.session.tick(10_000), ...stage.session.stop());
  assert.deepEqual(stage.actions, []);
  stage.welcome({ credit: 4 });
  assert.deepEqual(stage.frames()[0], first);
  assert.deepEqual(stage.frames().map(({ shard, sequence, minibatches }) => [shard, sequence, minibatches]),
    [[0, 1, 1], [1, 1, 1], [0, 2, 2], [1, 2, 2]]);
  assert.deepEqual(stage.messages(), [{ type: "fetch", have: [5, 7] }, { type: "lease", count: 1 }]);
});

test("what was computed before the welcome of a new identity never goes out under it", () => {
  const stage = ready(20, { credit: 4 });
  stage.session.closed(1006);
  stage.clear().step();
  stage.welcome({ credit: 4, replica: "67414f80ffffffff" });
  assert.deepEqual(stage.frames(), []);
});

test("a lease that ends while the socket is away is reported as trained after the welcome", () => {
  const stage = ready(2);
  stage.session.closed(1006);
  stage.clear().step([1, NaN, 1]);
  assert.deepEqual(stage.actions, []);
  stage.welcome();
  assert.deepEqual(stage.messages(), [
    { type: "dropped", minibatches: 1 }, { type: "trained", lease: 1 }, { type: "fetch", have: [-1, -1] }, { type: "lease", count: 2 },
  ]);
});

test("a chunk that fails while the socket is away is given back on the next: its lease is this replica's still", () => {
  const stage = new Stage().welcome();
  const grant = { lease: 5, epoch: 0, chunk: 0, rows: 2, seconds: 60, sha256: null };
  stage.tell({ type: "leased", leases: [grant] });
  stage.session.closed(1006);
  assert.deepEqual((stage.session.hello() as { leases: number[] }).leases, [5]);
  assert.deepEqual(stage.session.chunkFailed(WELCOME.run, grant, 0), []);
  assert.deepEqual((stage.session.hello() as { leases: number[] }).leases, []);
  assert.deepEqual(stage.clear().welcome().messages()[0], { type: "release", leases: [5] });
});

test("a new identity drops the unacknowledged; a new run fetches its program too", () => {
  const stage = ready();
  stage.step();
  stage.session.closed(1012);
  stage.clear().welcome({ replica: "67414f80ffffffff" });
  assert.deepEqual(stage.frames(), []);
  assert.ok(!dones(stage).includes("prepare"));
  stage.session.closed(1012);
  stage.clear().welcome({ run: "000000000000" });
  assert.equal(dones(stage)[0], "prepare");
  assert.equal(stage.step(), false);
});

test("a forgotten identity says hello anew with nothing", () => {
  const stage = ready();
  stage.step();
  stage.clear().ack(0, 1, "rejected", { reason: "expired" });
  assert.deepEqual(dones(stage), ["reconnect"]);
  assert.deepEqual(stage.session.hello(), NEW);
});

test("a new identity trains and tells nothing of the leases of the one before, also of chunks that come late", () => {
  const stage = ready(20, { credit: 4 });
  const late = { lease: 2, epoch: 0, chunk: 0, rows: 4, seconds: 60, sha256: null };
  const chunk = readChunk(new ArrayBuffer(16), 4, WELCOME.batch);
  stage.tell({ type: "leased", leases: [late] }).step();
  stage.ack(0, 1, "rejected", { reason: "expired" });
  stage.clear().welcome({ credit: 4, replica: "67414f80ffffffff" }).parameters(0, 4, [10, 20]).parameters(1, 7, [30]);
  stage.session.chunkLoaded(WELCOME.run, late, chunk);
  stage.actions.push(...stage.session.chunkFailed(WELCOME.run, late, 0));
  assert.equal(stage.step(), false);
  assert.deepEqual(stage.frames(), []);
  assert.deepEqual(stage.messages(), [{ type: "fetch", have: [-1, -1] }, { type: "lease", count: 2 }]);
  assert.deepEqual((stage.session.hello() as { leases: number[] }).leases, []);
  // Leased again, to this one: its rows are trained once, whichever of the two downloads comes first.
  stage.clear().tell({ type: "leased", leases: [late] });
  stage.session.chunkLoaded(WELCOME.run, late, chunk);
  stage.session.chunkLoaded(WELCOME.run, late, chunk);
  stage.tell({ type: "wait", seconds: 60, sha256: null });
  assert.deepEqual([stage.step(), stage.step(), stage.step()], [true, true, false]);
  assert.deepEqual(stage.frames().map(({ shard, sequence, rows }) => [shard, sequence, rows]), [[0, 1, 2], [1, 1, 2], [0, 2, 2], [1, 2, 2]]);
});

test("a gradient that is not finite is dropped, its rows count, and fresh parameters are fetched", () => {
  const stage = ready(2);
  stage.step([1, NaN, 1]);
  assert.deepEqual(stage.frames(), []);
  assert.deepEqual(stage.messages().slice(-3),
    [{ type: "dropped", minibatches: 1 }, { type: "trained", lease: 1 }, { type: "fetch", have: [-1, -1] }]);
  assert.equal(stage.session.counters.dropped, 1);
  stage.chunk(2, 2);
  assert.equal(stage.step(), false);
  stage.parameters(0, 4, [1, 1]).parameters(1, 7, [1]);
  assert.equal(stage.step(), true);
});

test("a model that gives nothing but NaN ends the replica", () => {
  const stage = ready(200);
  for (let i = 0; i < 20; i++) {
    stage.step([1, 1, 1], NaN);
    stage.parameters(0, 4, [1, 1]).parameters(1, 7, [1]);
  }
  assert.deepEqual(dones(stage).slice(-2), ["send", "end"]);
  assert.deepEqual(stage.messages().slice(-2), [{ type: "dropped", minibatches: 1 }, { type: "useless", minibatches: 20 }]);
  assert.equal(stage.messages().filter(({ type }) => type === "dropped").length, 20);
});

test("a chunk that cannot be had is given back, and others are asked for later", () => {
  const stage = new Stage().welcome();
  const grant = { lease: 5, epoch: 0, chunk: 0, rows: 2, seconds: 60, sha256: null };
  stage.clear().tell({ type: "leased", leases: [grant] });
  stage.clear().actions.push(...stage.session.chunkFailed(WELCOME.run, grant, 1000));
  assert.deepEqual(stage.messages(), [{ type: "release", leases: [5] }]);
});

test("stop gives back what is held", () => {
  const stage = ready().clear();
  assert.deepEqual(stage.session.stop(), [{ do: "send", message: { type: "release", leases: [1] } }]);
});

test("stop gives back every lease, at most 64 a message", () => {
  const stage = new Stage().welcome();
  const leases = Array.from({ length: 130 }, (_, lease) => ({ lease, epoch: 0, chunk: lease, rows: 2, seconds: 60, sha256: null }));
  stage.tell({ type: "leased", leases }).clear().actions.push(...stage.session.stop());
  const released = stage.messages().map((message) => (message.type === "release" ? message.leases : []));
  assert.deepEqual(released.map(({ length }) => length), [64, 64, 2]);
  assert.deepEqual(released.flat(), leases.map(({ lease }) => lease));
});

test("the end of the job ends the replica, with a sentence for people", () => {
  const stage = ready().tell({ type: "finished", reason: "until" });
  assert.deepEqual(stage.actions.at(-1), {
    do: "end", state: { state: "finished", message: "The model has reached its goal. Thank you!" },
  });
});

test("a close that is final says why in the gateway's words", () => {
  const stage = new Stage().tell({ type: "error", code: 4004, message: "no job named 'x'" });
  assert.deepEqual(stage.session.closed(4004), [{ do: "end", state: { state: "failed", message: "no job named 'x'" } }]);
});

test("a wait for the warm-up says so, and a second wait replaces it", () => {
  const stage = new Stage().welcome().tell({ type: "wait", seconds: 60, reason: "warmup" });
  assert.equal(stage.session.training!.waitReason, "warmup");
  stage.clear().tell({ type: "wait", seconds: 0 });
  stage.actions.push(...stage.session.tick(stage.now));
  assert.deepEqual(stage.messages(), [{ type: "lease", count: 2 }]);
  assert.equal(stage.session.training!.waitReason, null);
});

test("a replica without work fetches no versions until it has some", () => {
  const stage = new Stage().welcome().tell({ type: "wait", seconds: 60, sha256: null });
  stage.session.prepared(WELCOME.run);
  stage.parameters(0, 4, [10, 20]).parameters(1, 7, [30]).clear();
  assert.equal(stage.step(), false);
  assert.deepEqual(stage.messages(), []);
  stage.chunk(1, 20);
  assert.deepEqual(stage.messages()[0], { type: "fetch", have: [4, 7] });
});

test("a sum that was full while a frame was busy goes out behind it, and grows no further", () => {
  const stage = ready(40, { credit: 2 });
  stage.step();
  stage.ack(0, 1, "busy", { retry_seconds: 0.25 }).ack(1, 1, "busy", { retry_seconds: 0.25 });
  assert.deepEqual([stage.step(), stage.step(), stage.step(), stage.step()], [true, true, true, false]);
  stage.clear().now = 300;
  stage.actions.push(...stage.session.tick(stage.now));
  assert.deepEqual(stage.frames().map(({ shard, sequence, minibatches }) => [shard, sequence, minibatches]),
    [[0, 1, 1], [1, 1, 1], [0, 2, 3], [1, 2, 3]]);
  assert.equal(stage.step(), false);
});

test("no frame sums more than the most, whatever is busy and whenever the socket goes", () => {
  for (let seed = 0; seed < 40; seed++) {
    const random = new Random(seed);
    const below = (limit: number): number => Math.floor(random.uniform() * limit);
    const training = { ...WELCOME.training, n_push: 1 + below(4), max_accumulate: 1 + below(4), n_fetch: 2 };
    const changes = { credit: 1 + below(4), training };
    const stage = ready(400, changes);
    const frames: ReturnType<Stage["frames"]>[number][] = [];
    let unanswered: (readonly [number, number])[] = [];
    for (let turn = 0; turn < 400; turn++) {
      const event = below(10);
      if (event < 6) {
        stage.step();
      } else if (event < 7) {
        stage.now += 200;
        stage.actions.push(...stage.session.tick(stage.now));
      } else if (event < 8) {
        stage.session.closed(1006);
        unanswered = [];
        stage.welcome(changes);
      } else {
        const next = unanswered.shift();
        if (next) stage.ack(next[0], next[1], event < 9 ? "busy" : "accepted", { retry_seconds: 0.3 });
      }
      unanswered.push(...stage.frames().map(({ shard, sequence }) => [shard, sequence] as const));
      frames.push(...stage.frames());
      stage.clear();
      for (const shard of [0, 1]) assert.ok(unanswered.filter(([of]) => of === shard).length <= changes.credit);
    }
    assert.ok(Math.max(...frames.map(({ minibatches }) => minibatches)) <= Math.max(training.n_push, training.max_accumulate));
    assert.ok(Math.max(...frames.map(({ sequence }) => sequence)) > 3);
  }
});

test("after a malformed frame it starts anew, without what was refused and with the program that it has", () => {
  const stage = ready();
  stage.step();
  assert.deepEqual(stage.session.closed(4005), [{ do: "reconnect", atLeastSeconds: 0 }]);
  assert.deepEqual(stage.session.hello(), NEW);
  stage.clear().welcome({ replica: "67414f80ffffffff" });
  assert.deepEqual(stage.frames(), []);
  assert.ok(!dones(stage).includes("prepare"));
  stage.parameters(0, 4, [1, 2]).parameters(1, 7, [3]).chunk(2, 4).step();
  assert.deepEqual(stage.frames().map(({ shard, sequence }) => [shard, sequence]), [[0, 1], [1, 1]]);
});

test("five malformed frames in a row are forgiven, and the sixth says what was wrong", () => {
  const stage = new Stage();
  for (let i = 0; i < 5; i++) assert.deepEqual(stage.welcome().session.closed(4005), [{ do: "reconnect", atLeastSeconds: 0 }]);
  stage.welcome().tell({ type: "error", code: 4005, message: "shard 0 expects 2 values, got 3", retry_seconds: null });
  assert.deepEqual(stage.session.closed(4005), [{ do: "end", state: { state: "failed", message: "shard 0 expects 2 values, got 3" } }]);
});

test("a gradient that is taken makes up for the malformed ones before", () => {
  const stage = ready(40);
  for (let i = 0; i < 4; i++) stage.session.closed(4005), stage.welcome();
  stage.parameters(0, 4, [1, 2]).parameters(1, 7, [3]).chunk(2, 4).step();
  stage.ack(0, 1);
  for (let i = 0; i < 5; i++) {
    assert.deepEqual(stage.session.closed(4005), [{ do: "reconnect", atLeastSeconds: 0 }]);
    stage.welcome();
  }
});

test("a gradient that f16 cannot hold goes as f32, each shard by itself", () => {
  const stage = ready(40, { credit: 4, training: { ...WELCOME.training, push_codec: "f16", max_ahead: 9 } });
  stage.step([100_000, 1, 3]);
  stage.step([1, 2, 3]);
  stage.step([1, 1e-9, 3]);
  assert.deepEqual(stage.frames().map(({ shard, codec }) => [shard, codec]), [[0, 0], [1, 1], [0, 1], [1, 1], [0, 0], [1, 1]]);
  assert.deepEqual([...new Float32Array(stage.frames()[0]!.payload.slice().buffer)], [100_000, 1]);
});

test("a gradient in f16 stays so where the gateway takes no larger frame", () => {
  const stage = ready(20, { max_frame_bytes: 47, training: { ...WELCOME.training, push_codec: "f16" } });
  stage.step([100_000, 1, 3]);
  assert.deepEqual(stage.frames().map(({ shard, codec }) => [shard, codec]), [[0, 1], [1, 1]]);
});

test("a gateway of before gets halves, and hears of no dropped minibatches", () => {
  const older = { features: [], training: { ...WELCOME.training, push_codec: "f16" as const } };
  const stage = ready(20, older);
  stage.step([100_000, 1, 3]);
  assert.deepEqual(stage.frames().map(({ codec }) => codec), [1, 1]);
  stage.ack(0, 1).ack(1, 1);
  stage.step([1, NaN, 1]);
  assert.deepEqual(stage.messages().filter(({ type }) => type === "dropped"), []);
  stage.session.closed(1006);
  stage.clear().welcome({ ...older, features: ["dropped", "wide", "of tomorrow"] });
  assert.deepEqual(stage.messages().filter(({ type }) => type === "dropped"), [{ type: "dropped", minibatches: 1 }]);
});

test("a sum that is not finite drops all its minibatches", () => {
  const stage = ready(40, { training: { ...WELCOME.training, n_push: 2 } });
  stage.step([3e38, 1, 1]);
  stage.step([3e38, 1, 1]);
  assert.deepEqual(stage.frames(), []);
  assert.deepEqual(stage.messages().filter(({ type }) => type === "dropped"), [{ type: "dropped", minibatches: 2 }]);
  assert.equal(stage.session.counters.dropped, 2);
});
