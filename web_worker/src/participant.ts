// Does what a page asks of its replica, in whatever worker that runs.

import { PredictionError, reasonOf } from "./errors";
import { Gateway, NoJobError } from "./replica/gateway";
import type { Network } from "./replica/network";
import { Reporter } from "./replica/reporter";
import { prepareRunner, type Runner } from "./replica/runner";
import { hurry } from "./replica/scheduling";
import type { FromWorker, ToWorker } from "./worker-messages";

type Raw = Extract<ToWorker, { type: "raw" }>;

/** One replica and its page, which hears through `tell`. */
export class Participant {
  readonly #reporter: Reporter;
  #runner: Runner | null = null;
  /** What the page wanted before there was a runner. */
  readonly #early: ((runner: Runner) => void)[] = [];

  constructor(readonly tell: (message: FromWorker) => void, readonly network: Network) {
    this.#reporter = new Reporter({
      state: (state) => tell({ type: "state", state }),
      progress: (progress) => tell({ type: "progress", progress }),
    });
  }

  hear(message: ToWorker): void {
    switch (message.type) {
      case "start": return void this.#start(message);
      case "raw": return this.#sendRaw(message);
      case "predict": return this.#predict(message);
      case "online": return this.#online();
      case "stop": return void this.#stop();
    }
  }

  async #start({ base, job, backend, runsModules, trains }: Extract<ToWorker, { type: "start" }>): Promise<void> {
    // Whoever only looks on runs no module.
    const leave = runsModules || !trains ? null : (): void => this.tell({ type: "module" });
    try {
      const gateway = new Gateway(base, this.network);
      const welcomed = (): void => this.tell({ type: "welcomed" });
      this.#runner = await prepareRunner(gateway, job, backend, this.#reporter, welcomed, leave, trains);
      for (const act of this.#early.splice(0)) act(this.#runner);
      await this.#runner.run();
    } catch (error) {
      if (!(error instanceof NoJobError)) console.error(error);
      this.#reporter.state({ state: "failed", message: reasonOf(error) });
    }
  }

  #sendRaw({ key, data }: Raw): void {
    this.#withRunner((runner) => runner.sendRaw(data, (outcome) => this.tell({ type: "answered", key, outcome })));
  }

  #predict({ key, rows }: Extract<ToWorker, { type: "predict" }>): void {
    this.#withRunner((runner) => runner.predict(rows, (prediction) => {
      if (!(prediction instanceof PredictionError)) return this.tell({ type: "predicted", key, results: prediction });
      this.tell({ type: "unpredicted", key, reason: prediction.reason, message: prediction.message });
    }));
  }

  #withRunner(act: (runner: Runner) => void): void {
    if (this.#runner) act(this.#runner);
    else this.#early.push(act);
  }

  #online(): void {
    if (this.#runner) this.#runner.online();
    else hurry(Math.random);
  }

  async #stop(): Promise<void> {
    await this.#runner?.stop();
    this.tell({ type: "gone" });
  }
}
