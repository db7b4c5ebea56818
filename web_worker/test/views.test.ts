import assert from "node:assert/strict";
import { before, test } from "node:test";

import { defaultDevice, init, numpy as np } from "@jax-js/jax";

import { Random } from "../src/replica/random";

/** An array as its shape and its values in row-major order: what jax-js is compared with. */
interface Plain {
  readonly shape: readonly number[];
  readonly values: readonly number[];
}

/** The same move of an array of jax-js, and of a plain one. */
interface Move {
  readonly name: string;
  readonly move: (x: np.Array) => np.Array;
  readonly plain: (x: Plain) => Plain;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** The array of a shape in which the value at each index is `at` that index. */
function made(shape: readonly number[], at: (index: readonly number[]) => number): Plain {
  const index = shape.map(() => 0);
  const values = Array.from({ length: sizeOf(shape) }, () => {
    const value = at(index);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
    return value;
  });
  return { shape, values };
}

const read = ({ shape, values }: Plain, index: readonly number[]): number =>
  values[index.reduce((flat, i, axis) => flat * shape[axis]! + i, 0)]!;

/** Draws shapes and moves. */
class Draw {
  private readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  below(n: number): number {
    return Math.floor(this.random.uniform() * n);
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** A shape of so many elements, of at most four axes. */
  shape(elements: number): number[] {
    const shape: number[] = [];
    while (elements > 1 && shape.length < 3) {
      const length = this.of(Array.from({ length: elements }, (_, i) => i + 1).filter((n) => elements % n === 0));
      shape.push(length);
      elements /= length;
    }
    return elements > 1 || shape.length === 0 ? [...shape, elements] : shape;
  }

  permutation(length: number): number[] {
    const left = Array.from({ length }, (_, i) => i);
    return Array.from({ length }, () => left.splice(this.below(left.length), 1)[0]!);
  }

  move(shape: readonly number[]): Move {
    const kinds = [this.reshaped, this.reshaped, this.transposed, this.flipped];
    if (sizeOf(shape) < 500) kinds.push(this.repeated, this.padded);
    return this.of(kinds).call(this, shape);
  }

  private reshaped(shape: readonly number[]): Move {
    const to = this.shape(sizeOf(shape));
    return { name: `reshape ${to}`, move: (x) => x.reshape(to), plain: ({ values }) => ({ shape: to, values }) };
  }

  private transposed(shape: readonly number[]): Move {
    const axes = this.permutation(shape.length);
    const from = axes.map((_, axis) => axes.indexOf(axis));
    const plain = (x: Plain): Plain => made(axes.map((axis) => shape[axis]!), (i) => read(x, from.map((axis) => i[axis]!)));
    return { name: `transpose ${axes}`, move: (x) => np.transpose(x, axes), plain };
  }

  private flipped(shape: readonly number[]): Move {
    const flip = this.below(shape.length);
    const plain = (x: Plain): Plain =>
      made(shape, (i) => read(x, i.map((at, axis) => (axis === flip ? shape[axis]! - 1 - at : at))));
    return { name: `flip ${flip}`, move: (x) => np.flip(x, flip), plain };
  }

  private repeated(shape: readonly number[]): Move {
    const to = [this.of([2, 3, 4, 5, 6, 8]), ...shape];
    const plain = (x: Plain): Plain => made(to, (i) => read(x, i.slice(1)));
    return { name: `repeat ${to[0]}`, move: (x) => np.broadcastTo(x, to), plain };
  }

  private padded(shape: readonly number[]): Move {
    const edges = shape.map((): [number, number] => [this.below(3), this.below(3)]);
    const to = shape.map((length, axis) => edges[axis]![0] + length + edges[axis]![1]);
    const plain = (x: Plain): Plain =>
      made(to, (i) => {
        const inner = i.map((at, axis) => at - edges[axis]![0]);
        return inner.every((at, axis) => at >= 0 && at < shape[axis]!) ? read(x, inner) : 0;
      });
    return { name: `pad ${edges.join(" ")}`, move: (x) => np.pad(x, edges), plain };
  }
}

before(async () => {
  await init("wasm");
  defaultDevice("wasm");
});

test("arrays that were moved several times hold what each move by itself gives", async () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const draw = new Draw(seed);
    const start = made(draw.shape(draw.of([4, 5, 6, 12, 16, 20, 24, 30, 60])), () => 0);
    const values = start.values.map((_, i) => i + 1);
    let [expected, array]: [Plain, np.Array] = [{ ...start, values }, np.array(values).reshape([...start.shape])];
    const names = [`${start.shape}`];
    for (let i = 0; i < 6; i++) {
      const { name, move, plain } = draw.move(expected.shape);
      [expected, array] = [plain(expected), move(array)];
      names.push(name);
    }
    assert.deepEqual([...(await array.data())], expected.values, `seed ${seed}: ${names.join(", ")}`);
  }
});
