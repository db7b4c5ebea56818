import assert from "node:assert/strict";
import { test } from "node:test";

import { BY_NAME, byNumber } from "../src/codecs";
import { FrameError, NotFiniteError } from "../src/errors";
import type { CodecName } from "../src/protocol";
import { bytes, floats, floatsHex, hex, rows } from "./vectors";

interface CodecRow {
  name: string; codec: CodecName; values_hex: string; uniforms_hex: string; payload_hex: string; decoded_hex: string;
}
interface RefusedRow { name: string; codec: CodecName; count: number; payload_hex: string; error: "length" | "not-finite" }

for (const row of rows<CodecRow>("codecs.json")) {
  test(`codec ${row.name}`, () => {
    const codec = BY_NAME[row.codec];
    const values = floats(row.values_hex);
    assert.equal(hex(codec.encode(values, floats(row.uniforms_hex))), row.payload_hex);
    codec.check(bytes(row.payload_hex), values.length);
    const decoded = new Float32Array(values.length);
    codec.decode(bytes(row.payload_hex), decoded);
    assert.equal(floatsHex(decoded), row.decoded_hex);
  });
}

for (const row of rows<RefusedRow>("refused.json")) {
  test(`refused ${row.name}`, () => {
    const expected = row.error === "length" ? FrameError : NotFiniteError;
    assert.throws(() => BY_NAME[row.codec].check(bytes(row.payload_hex), row.count), expected);
  });
}

for (const codec of Object.values(BY_NAME)) {
  test(`${codec.name} refuses to encode NaN and infinity`, () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      assert.throws(() => codec.encode(Float32Array.of(1, bad), new Float32Array(2)), NotFiniteError);
    }
  });

  test(`${codec.name} decodes a payload at an odd offset`, () => {
    const values = Float32Array.of(1, -1, 0.5);
    const payload = codec.encode(values, new Float32Array(3).fill(0.5));
    const shifted = new Uint8Array([0, ...payload]).subarray(1);
    const decoded = new Float32Array(3);
    codec.check(shifted, 3);
    codec.decode(shifted, decoded);
    assert.ok(Math.abs(decoded[2]! - 0.5) < 0.01);
  });
}

test("an unknown codec number is refused", () => {
  assert.throws(() => byNumber(3), FrameError);
});
