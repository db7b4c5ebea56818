// Does what a page asks of its replica, in whatever worker that runs.

import { reasonOf } from "./errors";
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
  /** Items that came before there was a runner. */
  readonly #early: Raw[] = [];

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
      case "online": return this.#online();
      case "stop": return void this.#stop();
    }
  }

  async #start({ base, job, backend, runsModules }: Extract<ToWorker, { type: "start" }>): Promise<void> {
    const leave = runsModules ? null : (): void => this.tell({ type: "module" });
    try {
      const gateway = new Gateway(base, this.network);
      this.#runner = await prepareRunner(gateway, job, backend, this.#reporter, () => this.tell({ type: "welcomed" }), leave);
      for (const message of this.#early.splice(0)) this.#sendRaw(message);
      await this.#runner.run();
    } catch (error) {
      if (!(error instanceof NoJobError)) console.error(error);
      this.#reporter.state({ state: "failed", message: reasonOf(error) });
    }
  }

  #sendRaw(message: Raw): void {
    const { key, data } = message;
    if (this.#runner) this.#runner.sendRaw(data, (outcome) => this.tell({ type: "answered", key, outcome }));
    else this.#early.push(message);
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
