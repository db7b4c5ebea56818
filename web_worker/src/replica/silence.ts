// Notices that a line is dead: that nothing comes although an answer is due. Closes nothing.

import { Timer } from "./scheduling";

/** Hellos and gradients are answered within seconds, be it with `busy`. After so long without a word the line is dead. */
const DEAD_MILLISECONDS = 29_000;

/** A step may have kept what came waiting for as long: it is heard within so much more. */
const BENEFIT_MILLISECONDS = 1000;

/** The silence of one connection after the other. */
export class Silence {
  readonly #suspicion = new Timer(() => this.#verdict.set(BENEFIT_MILLISECONDS));
  readonly #verdict: Timer;
  #isDue = false;

  constructor(giveUp: () => void) {
    this.#verdict = new Timer(giveUp);
  }

  /** An answer is due, from now on if none was. */
  expect(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    this.#suspicion.set(DEAD_MILLISECONDS);
  }

  /** Something came, or nothing is to come any more. */
  end(): void {
    this.#isDue = false;
    this.#suspicion.clear();
    this.#verdict.clear();
  }
}
