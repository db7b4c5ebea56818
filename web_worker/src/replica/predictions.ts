// Answers what a page asks the model, with the newest parameters, between two minibatches. What a row is is asked-rows.ts's to say.

import type { Device } from "@jax-js/jax";

import { readRows } from "../asked-rows";
import { PredictionError, reasonOf } from "../errors";
import type { Floats } from "../executor/arrays";
import { Predictor, type Result } from "../executor/predictor";
import type { Forward } from "../program";
import type { Welcome } from "../protocol";
import type { Action } from "./actions";
import { now, Timer, yieldToMessages } from "./scheduling";
import type { Session } from "./session";
import type { Training } from "./training";

/** What a model says, by name; or why nothing. */
export type Prediction = Readonly<Record<string, Result>> | PredictionError;

/**
 * How long a gateway has to send newer parameters, if there are any: as long as a slow line takes there and back. A question for
 * them that is older, and has no answer, means that there are none.
 */
const NEWER_MILLISECONDS = 500;

interface Question {
  readonly rows: unknown;
  readonly settle: (prediction: Prediction) => void;
}

/** What was here when questions came, and until when something newer is waited for. */
interface Waiting {
  readonly have: readonly number[];
  readonly untilMilliseconds: number;
}

/** What the predictions of one run are computed with; null while it is fetched. */
interface Model {
  readonly run: string;
  predictor: Predictor | PredictionError | null;
}

export interface Surroundings {
  readonly device: Device;
  /** The forward program at an address; null when it is no longer wanted. */
  readonly fetch: (path: string, isWanted: () => boolean) => Promise<Forward | null>;
  readonly perform: (actions: readonly Action[]) => void;
  /** Has `answer` called soon. */
  readonly wake: () => void;
}

/** The questions of one replica's page. */
export class Predictions {
  readonly #questions: Question[] = [];
  readonly #timer: Timer;
  #waiting: Waiting | null = null;
  #model: Model | null = null;
  /** How often parameters had been asked for when they last were, and when that was. */
  #asks = 0;
  #askedAtMilliseconds = -Infinity;
  #newest: Floats = new Float32Array(0);
  #ended: PredictionError | null = null;

  constructor(readonly session: Session, readonly around: Surroundings) {
    this.#timer = new Timer(() => around.wake());
  }

  /** A page asks; `settle` gets the answer, once. */
  ask(rows: unknown, settle: (prediction: Prediction) => void): void {
    if (this.#ended) return settle(this.#ended);
    this.#questions.push({ rows, settle });
    this.around.wake();
  }

  /** Answers the questions that can be answered now. */
  async answer(): Promise<void> {
    const { welcome, training } = this.session;
    if (this.#questions.length === 0 || !welcome || !training) return;
    const predictor = this.#prepared(welcome);
    if (predictor instanceof PredictionError) return this.#settleAll(predictor);
    if (!predictor || !this.#isNewest(training)) return;
    this.#newest = training.parameters.newest(this.#newest);
    // Those that come meanwhile wait for the next time: training goes on in between.
    for (const { rows, settle } of this.#questions.splice(0)) settle(await this.#predict(predictor, rows, welcome));
  }

  /** Nothing is answered any more. */
  end(message: string): void {
    this.#ended = new PredictionError("ended", `predict expects a replica that takes part, got one that has ended: ${message}`);
    this.#timer.clear();
    this.#settleAll(this.#ended);
  }

  /** Frees what is compiled. */
  dispose(): void {
    this.#forget();
  }

  async #predict(predictor: Predictor, asked: unknown, { batch }: Welcome): Promise<Prediction> {
    try {
      const given = readRows(asked, batch.arrays, predictor.reads);
      return await predictor.predict(this.#newest, given.batch, given.rows, yieldToMessages);
    } catch (error) {
      if (error instanceof PredictionError) return error;
      console.error(error);
      return failed(error);
    }
  }

  #settleAll(error: PredictionError): void {
    for (const { settle } of this.#questions.splice(0)) settle(error);
  }

  /** Whether there are parameters, and none newer are to be had now. Asks for them. */
  #isNewest(training: Training): boolean {
    const { parameters } = training;
    // A replica that trains asks for every version anyway: what is here is as new as its next gradient.
    if (this.session.isTraining) return true;
    const waiting = (this.#waiting ??= this.#ask(training));
    if (!parameters.complete) {
      // The socket may be another one by now, on which nobody has asked.
      this.around.perform(training.refresh());
      return false;
    }
    const isAnswered = parameters.have.every((version, shard) => version !== waiting.have[shard]);
    if (!isAnswered && now() < waiting.untilMilliseconds) {
      this.#timer.set(waiting.untilMilliseconds - now());
      return false;
    }
    this.#waiting = null;
    return true;
  }

  #ask(training: Training): Waiting {
    this.around.perform(training.refresh());
    if (training.asks !== this.#asks) this.#askedAtMilliseconds = now();
    this.#asks = training.asks;
    return { have: training.parameters.have, untilMilliseconds: this.#askedAtMilliseconds + NEWER_MILLISECONDS };
  }

  #prepared(welcome: Welcome): Predictor | PredictionError | null {
    if (this.#model?.run !== welcome.run) {
      this.#forget();
      this.#model = { run: welcome.run, predictor: null };
      void this.#prepare(welcome, this.#model);
    }
    return this.#model.predictor;
  }

  async #prepare(welcome: Welcome, model: Model): Promise<void> {
    const isWanted = (): boolean => this.#model === model;
    const predictor = await this.#create(welcome, isWanted).catch((error: unknown) => failed(error));
    if (isWanted()) model.predictor = predictor;
    else if (predictor instanceof Predictor) predictor.dispose();
    this.around.wake();
  }

  async #create({ job, predict }: Welcome, isWanted: () => boolean): Promise<Predictor | PredictionError | null> {
    if (predict === null) {
      const message = `predict expects a job that says what its model predicts, with \`predict\`, as browsers can run it; job ${job} has none`;
      return new PredictionError("unavailable", message);
    }
    const program = await this.around.fetch(predict, isWanted);
    return program && Predictor.create(program, this.around.device);
  }

  #forget(): void {
    if (this.#model?.predictor instanceof Predictor) this.#model.predictor.dispose();
    this.#model = null;
    this.#waiting = null;
  }
}

function failed(error: unknown): PredictionError {
  return new PredictionError("failed", `The prediction could not be computed: ${reasonOf(error)}`, { cause: error });
}
