// Sums the gradients of minibatches until they are pushed. Knows no frame.

import type { Batch } from "./batches";

/** What one push carries. `gradient` is valid until the accumulator is used again. */
export interface Sum {
  readonly gradient: Float32Array;
  readonly baseVersions: readonly number[];
  readonly loss: number;
  readonly rows: number;
  readonly minibatches: number;
  readonly leases: ReadonlyMap<number, number>;
}

/** Adds the rows of `more` to `leases`. */
export function addRows(leases: Map<number, number>, more: ReadonlyMap<number, number>): void {
  for (const [lease, rows] of more) leases.set(lease, (leases.get(lease) ?? 0) + rows);
}

/** The sum of the gradients since the last push. */
export class Accumulator {
  readonly #gradient: Float32Array;
  #baseVersions: readonly number[] = [];
  #losses = 0;
  #rows = 0;
  #minibatches = 0;
  #leases = new Map<number, number>();

  constructor(parameters: number) {
    this.#gradient = new Float32Array(parameters);
  }

  get minibatches(): number {
    return this.#minibatches;
  }

  /** Adds one minibatch's gradient; `versions` are those of the parameters it was computed from. */
  add(gradient: Float32Array, loss: number, batch: Batch, versions: readonly number[]): void {
    const sum = this.#gradient;
    if (this.#minibatches === 0) {
      // The oldest parameters in the sum decide how stale it is.
      this.#baseVersions = [...versions];
      sum.set(gradient);
    } else {
      for (let i = 0; i < sum.length; i++) sum[i]! += gradient[i]!;
    }
    this.#losses += loss;
    this.#rows += batch.rows;
    this.#minibatches += 1;
    addRows(this.#leases, batch.leases);
  }

  /** Returns the sum and starts again from nothing. */
  take(): Sum {
    const sum = {
      gradient: this.#gradient,
      baseVersions: this.#baseVersions,
      loss: this.#losses / this.#minibatches,
      rows: this.#rows,
      minibatches: this.#minibatches,
      leases: this.#leases,
    };
    this.#losses = this.#rows = this.#minibatches = 0;
    this.#leases = new Map();
    return sum;
  }
}
