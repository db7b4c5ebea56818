import assert from "node:assert/strict";
import { test } from "node:test";

import { BY_NAME, byNumber } from "../src/codecs";
import { FrameError, NotFiniteError } from "../src/errors";
import { requireFit } from "../src/fit";
import { Kind, unpack } from "../src/frames";
import { arraysOf, holds, type Part } from "../src/precision";
import type { CodecName, Training } from "../src/protocol";
import { stepLocally } from "../src/replica/local-step";
import { Parameters } from "../src/replica/parameters";
import { bytes, floats, floatsHex, hex, rows } from "./vectors";

interface CodecRow {
  name: string; codec: CodecName; values_hex: string; uniforms_hex: string; payload_hex: string; decoded_hex: string;
}
interface PrecisionRow { name: string; values_hex: string; arrays: Part[]; holds: Record<CodecName, boolean> }
interface WideRow { name: string; kind: "parameters" | "gradient"; codec: CodecName; hex: string; values_hex: string | null }
interface LocalStepRow {
  name: string; gradient_hex: string; values_hex: string; stepped_hex: string; reach: number;
  training: Pick<Training, "local_learning_rate" | "clip_value" | "clip_norm">;
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

for (const row of rows<PrecisionRow>("precision.json")) {
  test(`precision: ${row.name}`, () => {
    for (const codec of ["f32", "f16", "int8"] as const) {
      assert.equal(holds(codec, floats(row.values_hex), row.arrays), row.holds[codec], codec);
    }
  });
}

const TRAINING: Training = {
  n_push: 1, n_fetch: 1, local_learning_rate: 0.05, max_accumulate: 8, max_ahead: 2, push_codec: "int8", fetch_codec: "f16", seed: 0,
  clip_value: null, clip_norm: null,
};

for (const row of rows<LocalStepRow>("local-steps.json")) {
  test(`local step: ${row.name}`, () => {
    const values = floats(row.values_hex);
    stepLocally(values, floats(row.gradient_hex), { ...TRAINING, ...row.training }, row.reach);
    assert.equal(floatsHex(values), row.stepped_hex);
  });
}

function readParameters(row: WideRow): Float32Array {
  const parameters = new Parameters([{ offset: 0, size: 3 }], { ...TRAINING, fetch_codec: row.codec });
  parameters.offer(unpack(bytes(row.hex)));
  parameters.adopt();
  return parameters.values;
}

function readGradient(row: WideRow): Float32Array {
  const frame = unpack(bytes(row.hex));
  const codec = requireFit(frame, Kind.GRADIENT, [{ offset: 0, size: 3 }], row.codec);
  codec.check(frame.payload, 3);
  const values = new Float32Array(3);
  codec.decode(frame.payload, values);
  return values;
}

for (const row of rows<WideRow>("wide.json")) {
  test(`wide ${row.name}`, () => {
    const read = row.kind === "parameters" ? readParameters : readGradient;
    if (row.values_hex === null) assert.throws(() => read(row));
    else assert.equal(floatsHex(read(row)), row.values_hex);
  });
}

test("the parts of the arrays that lie in a shard are cut at its ends", () => {
  const parameters = [
    { name: "w", shape: [2, 3], offset: 0 }, { name: "c", shape: [], offset: 6 }, { name: "v", shape: [5], offset: 7 },
  ];
  assert.deepEqual(arraysOf(parameters, { offset: 4, size: 6 }), [[0, 2], [2, 3], [3, 6]]);
  assert.deepEqual(arraysOf(parameters, { offset: 0, size: 4 }), [[0, 4]]);
});

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
