import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Replica } from "../src/worker";

/** Stands in for a browser's Worker. */
class FakeWorker {
  static all: FakeWorker[] = [];
  onerror: () => void = () => undefined;
  isTerminated = false;

  constructor(readonly address: string) {
    FakeWorker.all.push(this);
  }

  readonly heard: string[] = [];

  postMessage({ type }: { type: string }): void {
    this.heard.push(type);
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
