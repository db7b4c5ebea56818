// The generator shuffles as tests/vectors/random.json says, so that a browser and a Python replica give the same numbers.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Random } from "../src/replica/random";
import { rows } from "./vectors";

interface Row { readonly name: string; readonly seeds: number[]; readonly bits: number[]; readonly order: number[] }

for (const { name, seeds, bits, order } of rows<Row>("random.json")) {
  test(`${name} give the recorded bits and the recorded order`, () => {
    const random = new Random(...seeds);
    assert.deepEqual(bits.map(() => random.bits()), bits);
    assert.deepEqual([...new Random(...seeds).permutation(order.length)], order);
  });
}
