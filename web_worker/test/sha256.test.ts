// The names of chunks: the vectors, by the browser's SHA-256 and by our own.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DamagedError, verified } from "../src/replica/gateway";
import { digest, sha256 } from "../src/replica/sha256";
import { bytes, rows } from "./vectors";

interface Row { readonly name: string; readonly hex: string; readonly sha256: string; readonly is_whole: boolean }

const bodyOf = ({ hex }: Row): ArrayBuffer => bytes(hex).slice().buffer as ArrayBuffer;

for (const row of rows<Row>("chunks.json")) {
  test(`a chunk and its name: ${row.name}`, async (t) => {
    const got = await sha256(bodyOf(row));
    assert.equal(digest(new Uint8Array(bodyOf(row))), got);
    assert.equal(got === row.sha256, row.is_whole);
    const grant = { lease: 0, epoch: 0, chunk: 7, rows: 1, seconds: 60, sha256: row.sha256 };
    const take = (): Promise<ArrayBuffer> => verified(bodyOf(row), grant, "https://here/");
    if (row.is_whole) assert.deepEqual(await take(), bodyOf(row));
    else await assert.rejects(take(), new DamagedError(`chunk 7 of https://here/ expects the SHA-256 ${row.sha256}, got ${got}`));
    // As on a page that came over plain HTTP.
    t.mock.getter(globalThis, "crypto", () => ({}));
    assert.equal(await sha256(bodyOf(row)), got);
  });
}

test("both agree on every length around a block", async () => {
  for (let length = 0; length <= 200; length++) {
    const body = Uint8Array.from({ length }, (_, i) => (i * 37 + length) % 256);
    assert.equal(digest(body), await sha256(body.slice().buffer), `${length} bytes`);
  }
});
