// Counts what a replica does, for the page. Decides nothing.

/** How much of the last value a running mean keeps: about the last twenty steps weigh in. */
const KEPT = 0.95;

const blend = (mean: number | null, value: number): number => (mean === null ? value : KEPT * mean + (1 - KEPT) * value);

/** The running totals of one replica, over all its connections. */
export class Counters {
  steps = 0;
  rows = 0;
  pushes = 0;
  acknowledged = 0;
  busy = 0;
  rejected = 0;
  dropped = 0;
  loss: number | null = null;
  stepMilliseconds: number | null = null;

  stepped(loss: number, rows: number): void {
    this.steps += 1;
    this.rows += rows;
    this.loss = blend(this.loss, loss);
  }

  timed(milliseconds: number): void {
    this.stepMilliseconds = blend(this.stepMilliseconds, milliseconds);
  }
}
