// Questions of a page to a session's model, with a clock, a gateway and a forward program that a test holds in its hand.

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { PredictionError } from "../src/errors";
import { Kind, pack } from "../src/frames";
import type { Forward } from "../src/program";
import type { Action } from "../src/replica/actions";
import { readChunk } from "../src/replica/batches";
import { Predictions, type Prediction } from "../src/replica/predictions";
import { Random } from "../src/replica/random";
import { Session } from "../src/replica/session";
import { Immediate } from "./immediate";
import { ProgramBuilder } from "./programs";

const WELCOME = {
  type: "welcome", job: "small", run: "000000000001", replica: "67414f80a1b2c3d4", state: "running", program: "/p", predict: "/first",
  parameters: [{ name: "w", shape: [2], offset: 0 }], shards: [{ offset: 0, size: 1 }, { offset: 1, size: 1 }],
  batch: { rows: 1, arrays: [{ name: "x", dtype: "float32", shape: [2] }] },
  training: { n_push: 1, n_fetch: 1, local_learning_rate: 0, max_accumulate: 1, max_ahead: 2, push_codec: "f32", fetch_codec: "f32", seed: 0 },
  applied: [0, 0], credit: 1, max_frame_bytes: 1 << 20,
};

/** w times `factor`, times x. */
function times(factor: number): Forward {
  const b = new ProgramBuilder();
  const [w, x] = [b.parameter([2]), b.batch([1, 2])];
  const wide = b.equation("reshape", [w], [1, 2], { shape: [1, 2] });
  const product = b.equation("mul", [b.equation("mul", [wide, x], [1, 2]), b.constant(factor)], [1, 2]);
  return b.forward({ prediction: product });
}

class Stage {
  readonly session: Session;
  readonly predictions: Predictions;
  readonly said: string[] = [];
  readonly downloads: { path: string; resolve: (program: Forward) => void; reject: (error: Error) => void }[] = [];
  now = 1000;

  constructor(t: TestContext, trains: boolean) {
    Object.assign(globalThis, { MessageChannel: Immediate });
    t.mock.timers.enable({ apis: ["setTimeout"] });
    t.mock.method(performance, "now", () => this.now);
    t.mock.method(console, "error", () => {});
    this.session = new Session("wasm", new Random(1), true, trains);
    this.predictions = new Predictions(this.session, {
      device: "wasm",
      fetch: (path) => new Promise((resolve, reject) => this.downloads.push({ path, resolve, reject })),
      perform: (actions) => this.perform(actions),
      wake: () => {},
    });
    t.after(() => this.predictions.dispose());
  }

  perform(actions: readonly Action[]): void {
    this.said.push(...actions.map((action) => (action.do === "send" ? JSON.stringify(action.message) : action.do)));
  }

  welcome(changes: object = {}): void {
    this.perform(this.session.receiveText(JSON.stringify({ ...WELCOME, ...changes }), this.now));
  }

  parameters(shard: number, version: number, value: number): void {
    const header = { kind: Kind.PARAMETERS, codec: 0, shard, count: 1, sequence: 0, version, loss: 0, rows: 0, minibatches: 0 };
    this.session.receiveFrame(pack({ ...header, payload: new Uint8Array(Float32Array.of(value).buffer) }).buffer);
  }

  /** What was said since this was last asked. */
  heard(): string[] {
    return this.said.splice(0);
  }

  ask(x: unknown): { readonly found: Prediction | null } {
    const box: { found: Prediction | null } = { found: null };
    this.predictions.ask({ x }, (found) => (box.found = found));
    return box;
  }

  /** The loop's turn. */
  async turn(): Promise<void> {
    await this.predictions.answer();
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** A first answer: the program is here, and both shards at version 1 with the values 10 and 20. */
  async begin(): Promise<void> {
    this.welcome();
    const first = this.ask([1, 1]);
    await this.turn();
    this.downloads[0]!.resolve(times(1));
    await this.turn();
    await this.turn();
    this.parameters(0, 1, 10);
    this.parameters(1, 1, 20);
    await this.turn();
    assert.deepEqual(valuesOf(first), [10, 20]);
    this.said.length = 0;
  }
}

function valuesOf({ found }: { readonly found: Prediction | null }): number[] | null {
  if (found === null) return null;
  if (found instanceof PredictionError) throw found;
  return [...found["prediction"]!.data];
}

const fetchOf = (...have: number[]): string => JSON.stringify({ type: "fetch", have });

test("who looks on asks for no rows, and for parameters when its page asks", async (t) => {
  const stage = new Stage(t, false);
  stage.welcome();
  assert.deepEqual(stage.heard(), []);
  const answer = stage.ask([[1, 2], [3, 4]]);
  await stage.turn();
  assert.deepEqual(stage.downloads.map(({ path }) => path), ["/first"]);
  stage.downloads[0]!.resolve(times(1));
  await stage.turn();
  await stage.turn();
  assert.deepEqual(stage.heard(), [fetchOf(-1, -1)]);
  stage.parameters(0, 1, 10);
  await stage.turn();
  assert.equal(valuesOf(answer), null);
  stage.parameters(1, 1, 100);
  await stage.turn();
  assert.deepEqual(answer.found, { prediction: { shape: [2, 2], data: Float32Array.of(10, 200, 30, 400) } });
});

test("each question is answered with parameters that are newer, if there are any", async (t) => {
  const stage = new Stage(t, false);
  await stage.begin();
  const answer = stage.ask([1, 1]);
  await stage.turn();
  assert.deepEqual(stage.heard(), [fetchOf(1, 1)]);
  stage.parameters(0, 7, 70);
  stage.parameters(1, 8, 80);
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [70, 80]);
});

test("where nothing newer comes the answer is of what is here, and the next at once while that question stands", async (t) => {
  const stage = new Stage(t, false);
  await stage.begin();
  const answer = stage.ask([1, 1]);
  await stage.turn();
  stage.now += 499;
  await stage.turn();
  assert.equal(valuesOf(answer), null);
  stage.now += 1;
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [10, 20]);
  const next = stage.ask([2, 2]);
  await stage.turn();
  assert.deepEqual(valuesOf(next), [20, 40]);
  assert.deepEqual(stage.heard(), [fetchOf(1, 1)]);
});

test("a socket that broke before parameters came asks for them again", async (t) => {
  const stage = new Stage(t, false);
  stage.welcome();
  const answer = stage.ask([1, 1]);
  await stage.turn();
  stage.downloads[0]!.resolve(times(1));
  await stage.turn();
  await stage.turn();
  stage.session.closed(1006);
  stage.welcome();
  stage.heard();
  await stage.turn();
  assert.deepEqual(stage.heard(), [fetchOf(-1, -1)]);
  stage.parameters(0, 1, 10);
  stage.parameters(1, 1, 20);
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [10, 20]);
});

test("without a socket the answer is of what is here", async (t) => {
  const stage = new Stage(t, false);
  await stage.begin();
  stage.session.closed(1006);
  stage.now += 10_000;
  const answer = stage.ask([1, 1]);
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [10, 20]);
});

test("who trains answers between two minibatches, with shards that came and are not adopted yet", async (t) => {
  const stage = new Stage(t, true);
  stage.welcome();
  stage.perform(stage.session.receiveText(JSON.stringify({ type: "leased", leases: [{ lease: 1, epoch: 0, chunk: 0, rows: 1, seconds: 60 }] }), 0));
  const grant = { lease: 1, epoch: 0, chunk: 0, rows: 1, seconds: 60, sha256: null };
  stage.session.chunkLoaded(WELCOME.run, grant, readChunk(Float32Array.of(1, 2).buffer, 1, stage.session.welcome!.batch));
  stage.session.prepared(WELCOME.run);
  stage.parameters(0, 3, 30);
  stage.parameters(1, 3, 40);
  stage.heard();
  const answer = stage.ask([1, 1]);
  await stage.turn();
  stage.downloads[0]!.resolve(times(1));
  await stage.turn();
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [30, 40]);
  assert.deepEqual(stage.heard(), []);
  assert.deepEqual(stage.session.training!.parameters.versions, [-1, -1]);
});

test("another run has a program of its own", async (t) => {
  const stage = new Stage(t, false);
  await stage.begin();
  stage.session.closed(1006);
  stage.welcome({ run: "000000000002", predict: "/second" });
  const answer = stage.ask([1, 1]);
  await stage.turn();
  assert.deepEqual(stage.downloads.map(({ path }) => path), ["/first", "/second"]);
  stage.downloads[1]!.resolve(times(2));
  await stage.turn();
  await stage.turn();
  stage.parameters(0, 1, 1);
  stage.parameters(1, 1, 2);
  await stage.turn();
  assert.deepEqual(valuesOf(answer), [2, 4]);
});

test("rows that are not the job's cost only their question", async (t) => {
  const stage = new Stage(t, false);
  await stage.begin();
  stage.now += 10_000;
  const [bad, good] = [stage.ask([1, 2, 3]), stage.ask([1, 1])];
  await stage.turn();
  stage.now += 500;
  await stage.turn();
  assert.throws(() => valuesOf(bad), { reason: "input", message: "predict expects x (float32, 2 a row): 2 numbers for one row, or as many for each, got 3" });
  assert.deepEqual(valuesOf(good), [10, 20]);
});

test("a job without predictions says so, and a program that is not to be had too", async (t) => {
  const stage = new Stage(t, false);
  stage.welcome({ predict: null });
  const answer = stage.ask([1, 1]);
  await stage.turn();
  await stage.turn();
  assert.throws(() => valuesOf(answer), { reason: "unavailable", message: /as browsers can run it; job small has none$/ });
  stage.welcome({ run: "000000000002" });
  const other = stage.ask([1, 1]);
  await stage.turn();
  stage.downloads[0]!.reject(new Error("got 404"));
  await stage.turn();
  await stage.turn();
  assert.throws(() => valuesOf(other), { reason: "failed", message: "The prediction could not be computed: got 404" });
});

test("a replica that has ended answers nothing, what was asked before neither", async (t) => {
  const stage = new Stage(t, false);
  const before = stage.ask([1, 1]);
  stage.predictions.end("Stopped.");
  const after = stage.ask([1, 1]);
  for (const answer of [before, after]) {
    assert.throws(() => valuesOf(answer), { reason: "ended", message: "predict expects a replica that takes part, got one that has ended: Stopped." });
  }
});
