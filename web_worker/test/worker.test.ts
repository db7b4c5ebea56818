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

  postMessage(): void {
    // Nobody hears.
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

const revoked: string[] = [];

beforeEach(() => {
  FakeWorker.all = [];
  revoked.length = 0;
  Object.assign(globalThis, { Worker: FakeWorker });
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
