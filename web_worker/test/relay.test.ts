// A sandbox reaches its gateway through the page around it, and nothing else.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Relay } from "../src/relay";
import { RelayedNetwork } from "../src/relayed";
import type { Network, Socket } from "../src/replica/network";
import type { ToSandbox } from "../src/worker-messages";

const BASE = "https://gateway.example/path/";
const RUN = "3f0c5a9d2b11";

class FakeSocket implements Socket {
  binaryType: BinaryType = "blob";
  readyState = 0;
  onopen: Socket["onopen"] = null;
  onclose: Socket["onclose"] = null;
  onmessage: Socket["onmessage"] = null;
  readonly sent: (string | Uint8Array)[] = [];
  closedWith: number | null = null;

  constructor(readonly url: string) {}

  send(data: string | Uint8Array): void {
    this.sent.push(data);
  }

  close(code: number): void {
    this.closedWith = code;
  }
}

/** The page's network, which a test answers for. */
class FakeNetwork implements Network {
  readonly reachesAll = true;
  readonly asked: string[] = [];
  readonly sockets: FakeSocket[] = [];
  answer = (): Promise<Response> => Promise.resolve(new Response("rows", { status: 200 }));

  get(url: string, { cache }: RequestInit): Promise<Response> {
    this.asked.push(`${url} ${cache}`);
    return this.answer();
  }

  open(url: string): Socket {
    const socket = new FakeSocket(url);
    this.sockets.push(socket);
    return socket;
  }
}

/** Both sides, joined without a port. */
function joined(): { network: FakeNetwork; relay: Relay; inside: RelayedNetwork } {
  const network = new FakeNetwork();
  let inside: RelayedNetwork | null = null;
  const relay = new Relay(BASE, (message: ToSandbox) => void inside!.hear(message), network);
  inside = new RelayedNetwork((message) => assert.ok(relay.hear(message)));
  return { network, relay, inside };
}

test("an answer comes through with its status and its body", async () => {
  const { network, inside } = joined();
  network.answer = () => Promise.resolve(new Response("gone", { status: 404 }));
  const answer = await inside.get(`${BASE}jobs/digits`, { cache: "no-store" });
  assert.deepEqual([answer.status, answer.ok, await answer.text()], [404, false, "gone"]);
  assert.deepEqual(network.asked, [`${BASE}jobs/digits no-store`]);
});

test("a gateway that does not answer is unreachable in the sandbox too", async () => {
  const { network, inside } = joined();
  network.answer = () => Promise.reject(new TypeError("Failed to fetch"));
  await assert.rejects(inside.get(`${BASE}jobs`, {}), /Failed to fetch/);
});

test("what a replica needs may be asked for", async () => {
  const { network, inside } = joined();
  const paths = ["jobs", "jobs/a-1", "jobs/a%20b", `jobs/a/${RUN}/program`, `jobs/a/${RUN}/predict`, `jobs/a/${RUN}/chunks/12`, `jobs/a/${RUN}/chunks/${"0f".repeat(32)}`];
  for (const path of paths) assert.equal(await (await inside.get(`${BASE}${path}`, {})).text(), "rows");
  assert.equal(network.asked.length, paths.length);
});

for (const url of [
  "https://bank.example/", "https://gateway.example/", `${BASE}`, `${BASE}assets/page.js`, `${BASE}jobs/../../admin`, `${BASE}jobs/a/..`,
  `${BASE}jobs?after=1#`, `${BASE}jobs/a/${RUN}/chunks/12/../..`, "https://gateway.example/path/../jobs", "data:,x", `${BASE}jobs/a/socket`,
  `${BASE}jobs/..`, `${BASE}jobs/%2e%2e`, `${BASE}jobs/.%2E`,
]) {
  test(`a sandbox may not ask for ${url}`, async () => {
    const { network, inside } = joined();
    await assert.rejects(inside.get(url, {}), /a sandbox may ask/);
    assert.deepEqual(network.asked, []);
  });
}

test("a socket's life comes through", () => {
  const { network, inside } = joined();
  const socket = inside.open("wss://gateway.example/path/jobs/digits/socket");
  const heard: unknown[] = [];
  socket.onopen = () => heard.push("open");
  socket.onmessage = ({ data }) => heard.push(data);
  socket.onclose = ({ code }) => heard.push(code);
  const [outside] = network.sockets;
  assert.equal(outside!.binaryType, "arraybuffer");
  outside!.onopen!(new Event("open"));
  assert.equal(socket.readyState, 1);
  socket.send("hello");
  socket.send(Uint8Array.of(1, 2));
  const frame = new ArrayBuffer(3);
  outside!.onmessage!(new MessageEvent("message", { data: "welcome" }));
  outside!.onmessage!(new MessageEvent("message", { data: frame }));
  socket.close(1000);
  assert.deepEqual([outside!.sent, outside!.closedWith], [["hello", Uint8Array.of(1, 2)], 1000]);
  outside!.onclose!(Object.assign(new Event("close"), { code: 4004, reason: "", wasClean: true }));
  assert.deepEqual(heard, ["open", "welcome", frame, 4004]);
  assert.equal(socket.readyState, 3);
});

for (const url of ["wss://evil.example/jobs/a/socket", "wss://gateway.example/path/jobs", `${BASE}jobs/a/socket`, "ws://gateway.example/path/jobs/a/socket"]) {
  test(`a sandbox may not open ${url}`, (t) => {
    t.mock.method(console, "warn", () => undefined);
    const { network, inside } = joined();
    assert.equal(inside.open(url).readyState, 3);
    assert.deepEqual(network.sockets, []);
  });
}

test("a sandbox that ends leaves no socket open, and hears nothing more", () => {
  const { network, relay, inside } = joined();
  const closed: number[] = [];
  inside.open("wss://gateway.example/path/jobs/digits/socket").onclose = ({ code }) => closed.push(code);
  relay.end();
  assert.equal(network.sockets[0]!.closedWith, 1000);
  assert.equal(network.sockets[0]!.onclose, null);
  assert.deepEqual(closed, []);
});
