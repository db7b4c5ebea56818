import assert from "node:assert/strict";
import { test } from "node:test";

import { FrameError, MessageError } from "../src/errors";
import { requireFit } from "../src/fit";
import { Kind, pack, packItem, unpack, unpackItem, type Frame } from "../src/frames";
import { decodeFromGateway, decodeFromReplica, encode, type FromGateway, type FromReplica } from "../src/protocol";
import { bytes, hex, rows } from "./vectors";

interface MessageRow { name: string; from: "replica" | "gateway"; text: string; message: FromReplica | FromGateway }
interface FrameRow { name: string; hex: string; frame: Omit<Frame, "payload"> & { payload_hex: string } }
interface ItemRow { name: string; hex: string; number: number; payload_hex: string }
interface MalformedRow { name: string; of: "text" | "frame" | "gradient" | "item"; text?: string; hex?: string; close: number }

for (const row of rows<MessageRow>("messages.json")) {
  test(`message: ${row.name}`, () => {
    const decoded = row.from === "replica" ? decodeFromReplica(row.text) : decodeFromGateway(row.text);
    assert.deepEqual(decoded, row.message);
    assert.deepEqual(JSON.parse(encode(row.message)), JSON.parse(row.text));
  });
}

for (const row of rows<FrameRow>("frames.json")) {
  test(`frame: ${row.name}`, () => {
    const { payload_hex, ...header } = row.frame;
    assert.deepEqual(unpack(bytes(row.hex)), { ...header, payload: bytes(payload_hex) });
    assert.equal(hex(pack({ ...header, payload: bytes(payload_hex) })), row.hex);
  });
}

for (const row of rows<ItemRow>("items.json")) {
  test(`item: ${row.name}`, () => {
    assert.deepEqual(unpackItem(bytes(row.hex)), { number: row.number, payload: bytes(row.payload_hex) });
    assert.equal(hex(packItem(row.number, bytes(row.payload_hex))), row.hex);
  });
}

// What malformed.json says its gradients do not fit.
const SHARDS = [{ offset: 0, size: 2048 }, { offset: 2048, size: 1000 }];

function readText(text: string): void {
  const message = decodeFromReplica(text);
  if (message.type === "fetch" && message.have.length !== SHARDS.length) throw new MessageError("one version a shard");
}

for (const row of rows<MalformedRow>("malformed.json")) {
  test(`malformed ${row.of}: ${row.name}`, () => {
    if (row.of === "text") assert.throws(() => readText(row.text!), MessageError);
    else if (row.of === "item") assert.throws(() => unpackItem(bytes(row.hex!)), FrameError);
    else if (row.of === "frame") assert.throws(() => unpack(bytes(row.hex!)), FrameError);
    else assert.throws(() => requireFit(unpack(bytes(row.hex!)), Kind.GRADIENT, SHARDS, "int8"), FrameError);
  });
}

test("a gateway's message with an unknown field is read without it", () => {
  assert.deepEqual(decodeFromGateway('{"type":"wait","seconds":1,"mood":"good"}'), { type: "wait", seconds: 1, reason: null });
});

test("a frame is read from the middle of a buffer", () => {
  const row = rows<FrameRow>("frames.json")[0]!;
  const padded = new Uint8Array([7, ...bytes(row.hex)]).subarray(1);
  assert.equal(hex(unpack(padded).payload), row.frame.payload_hex);
});
