// What a page has asked its model, on the page's side: kept until the worker answers, which may be replaced by a sandbox meanwhile.

import type { AskedRows } from "./asked-rows";
import { PredictionError } from "./errors";
import type { Result } from "./executor/predictor";
import type { FromWorker, ToWorker } from "./worker-messages";

type Answer = Extract<FromWorker, { type: "predicted" | "unpredicted" }>;

interface Question {
  readonly rows: AskedRows;
  readonly resolve: (results: Record<string, Result>) => void;
  readonly reject: (error: PredictionError) => void;
}

/** The questions of one page; `tell` reaches its worker, if there is one. */
export class Questions {
  readonly #open = new Map<number, Question>();
  #last = 0;
  #ended: PredictionError | null = null;

  constructor(readonly tell: (message: ToWorker) => void) {}

  ask(rows: AskedRows): Promise<Record<string, Result>> {
    return new Promise((resolve, reject) => {
      if (this.#ended) throw this.#ended;
      const key = ++this.#last;
      // As they are now: the page may draw on.
      const question = { rows: copied(rows), resolve, reject };
      this.#open.set(key, question);
      this.tell({ type: "predict", key, rows: question.rows });
    });
  }

  /** Asks all that is open again: there is another worker. */
  repeat(): void {
    for (const [key, { rows }] of this.#open) this.tell({ type: "predict", key, rows });
  }

  hear(answer: Answer): void {
    const question = this.#open.get(answer.key);
    this.#open.delete(answer.key);
    if (answer.type === "predicted") question?.resolve({ ...answer.results });
    else question?.reject(new PredictionError(answer.reason, answer.message));
  }

  /** Nothing is answered any more. */
  end(message: string): void {
    this.#ended ??= new PredictionError("ended", `predict expects a replica that takes part, got one that has ended: ${message}`);
    for (const { reject } of this.#open.values()) reject(this.#ended);
    this.#open.clear();
  }
}

function copied(rows: AskedRows): AskedRows {
  try {
    return structuredClone(rows);
  } catch (error) {
    throw new PredictionError("input", "predict expects arrays of numbers by name, got what cannot be copied", { cause: error });
  }
}
