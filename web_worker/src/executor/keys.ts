// Random keys: derives them from the minibatch's key before a step. The bits themselves are drawn on the backend.

import type { Equation, Forward, Program } from "../program";
import { integer, list, type Reader } from "../schema";

/** The data of a key, two words, or of several, flat. */
export type Key = Uint32Array<ArrayBuffer>;

type Words = readonly [number, number];

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]] as const;

/** Threefry-2x32 with 20 rounds (Salmon et al. 2011) of the counter (0, `low`). */
function hashed([first, second]: Words, low: number): Words {
  const schedule = [first, second, first ^ second ^ 0x1bd11bda] as const;
  let [x, y] = [first, (low + second) | 0];
  for (let block = 0; block < 5; block++) {
    for (const rotation of ROTATIONS[block % 2]!) {
      x = (x + y) | 0;
      y = ((y << rotation) | (y >>> (32 - rotation))) ^ x;
    }
    x = (x + schedule[(block + 1) % 3]!) | 0;
    y = (y + schedule[(block + 2) % 3]! + block + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}

const word = integer(0, 2 ** 32 - 1);
const paths = list(list(word));
const root: Reader<Words> = (value, path) => {
  const [first, second] = list(word, 2)(value, path);
  return [first!, second!];
};

/** Whether an equation draws bits: it takes keys that are derived here rather than the value it names. */
export function draws({ primitive }: Equation): boolean {
  return primitive === "random_bits";
}

/** For each equation that draws its keys, uint32[n, 2] flat, in the order of the equations. */
export class DerivedKeys {
  readonly #draws: readonly { readonly root: Words | null; readonly paths: readonly (readonly number[])[] }[];

  constructor(program: Program | Forward) {
    this.#draws = program.equations.filter(draws).map(({ inputs, options }) => ({
      root: inputs.length > 0 ? null : root(options["root"], "random_bits.root"),
      paths: paths(options["paths"], "random_bits.paths"),
    }));
  }

  /** What the equations take when the minibatch's key is `key`. */
  of(key: Key): Key[] {
    const given: Words = [key[0]!, key[1]!];
    return this.#draws.map(({ root, paths }) => Uint32Array.from(paths.flatMap((path) => [...path.reduce(hashed, root ?? given)])));
  }
}
