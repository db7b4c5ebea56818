// The loop that computes: one minibatch after the other, as long as there is work. What to compute is the session's to say.

import type { Executor } from "../executor/executor";
import type { Action, Progress, State } from "./actions";
import type { Batch } from "./batches";
import type { Reporter } from "./reporter";
import type { Predictions } from "./predictions";
import { Alarm, now, yieldToMessages } from "./scheduling";
import type { Session } from "./session";
import type { Training } from "./training";

const TRAINING: State = { state: "training", message: "Computing gradients." };
const IDLE = "Waiting for the service to hand out more work.";
/** By the gateway's reason. */
const WAITING: Readonly<Record<string, string>> = {
  warmup: "Warming up: one device trains alone at first. Yours joins in soon.",
  pool: "Waiting for the first rows that somebody sends.",
};

/** Trains one session, and answers what its page asks in between; `perform` carries out its actions. */
export class Trainer {
  executor: Executor | null = null;
  #gradient = new Float32Array(0);
  #isEnded = false;
  readonly #alarm = new Alarm();

  constructor(
    readonly session: Session,
    readonly reporter: Reporter,
    readonly perform: (actions: readonly Action[]) => void,
    readonly progress: () => Progress,
    readonly predictions: Predictions,
  ) {}

  /** Something has come that may be trained with. */
  wake(): void {
    this.#alarm.wake();
  }

  end(): void {
    this.#isEnded = true;
    this.wake();
  }

  async run(): Promise<void> {
    while (!this.#isEnded) {
      await this.predictions.answer();
      const { batch, actions } = this.session.next(now());
      this.perform(actions);
      const { training } = this.session;
      if (batch && training && this.executor) {
        await this.#step(this.executor, training, batch);
        // Messages are taken between two steps: a newer model is adopted as soon as it is here.
        await yieldToMessages();
      } else {
        this.#showIdle();
        await this.#alarm.sleep();
      }
    }
    this.executor?.dispose();
    this.predictions.dispose();
  }

  async #step(executor: Executor, training: Training, batch: Batch): Promise<void> {
    const { values } = training.parameters;
    if (this.#gradient.length !== values.length) this.#gradient = new Float32Array(values.length);
    // Without a connection it goes on for a little while, but that is not what a person should read.
    if (this.session.isOpen) this.reporter.state(TRAINING);
    const started = now();
    const loss = await executor.step(values, batch.arrays, this.#gradient, batch.key);
    // A GPU computes while messages come: one of them may have started another run.
    if (this.#isEnded || training !== this.session.training) return;
    this.session.counters.timed(now() - started);
    this.perform(training.stepped(batch, loss, this.#gradient, now()));
    this.reporter.progress(this.progress, now());
  }

  get #idle(): string {
    return WAITING[this.session.training?.waitReason ?? ""] ?? IDLE;
  }

  #showIdle(): void {
    if (this.session.isOpen && this.executor) this.reporter.waiting(this.#idle, this.progress);
  }
}
