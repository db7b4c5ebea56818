// Answers requests about one module: loads it, takes a gradient step, scores rows. Reads and writes no stream.

import { jit, numpy as np, type OwnedFunction } from "@jax-js/jax";

import { batchArrays, keyArray, parameterArrays, parameterType, rowsType, type BatchData, type Floats } from "../src/executor/arrays";
import { Executor, useDevice } from "../src/executor/executor";
import { ModuleModel, type ModelModule } from "../src/executor/module";
import { ModelError } from "../src/errors";
import type { BatchArray, ParameterArray } from "../src/protocol";
import { readChunk } from "../src/replica/batches";
import { loadModule } from "./load";

const DEVICE = "wasm";

export interface Layout { readonly parameters: readonly ParameterArray[]; readonly arrays: readonly BatchArray[] }

export type Request =
  | ({ readonly do: "load"; readonly source: string; readonly file: string } & Layout)
  | { readonly do: "parameters" }
  | { readonly do: "step" | "score"; readonly rows: number; readonly key: readonly [number, number] };

interface Reply { readonly header: object; readonly body?: Uint8Array }
type Score = OwnedFunction<(parameters: np.Array[], batch: np.Array[], key: np.Array) => Record<string, np.Array>>;

/** JSON has no NaN and no infinity: numbers go as text, which Python's float() reads. */
const spelled = (value: number): string => String(value);

function heldRows(body: Uint8Array<ArrayBuffer>, rows: number, arrays: readonly BatchArray[]): BatchData[] {
  const chunk = readChunk(body.buffer, rows, { rows, arrays: [...arrays] });
  return chunk.arrays.map((values) => (values instanceof Float32Array || values instanceof Uint32Array ? values : Int32Array.from(values)) as BatchData);
}

/** The module of this process. */
export class Model {
  #module: ModelModule | null = null;
  #file = "the model";
  #layout: Layout = { parameters: [], arrays: [] };
  #parameters: Floats = new Float32Array(0);
  #score: Score | null = null;

  async answer(request: Request, body: Uint8Array<ArrayBuffer>): Promise<Reply> {
    switch (request.do) {
      case "load": return this.#load(request);
      case "parameters":
        this.#parameters = new Float32Array(body.buffer);
        return { header: {} };
      case "step":
      case "score": return this.#run(request, body);
    }
  }

  async #run({ do: what, rows, key }: Extract<Request, { do: "step" | "score" }>, body: Uint8Array<ArrayBuffer>): Promise<Reply> {
    const noise = Uint32Array.from(key);
    try {
      return what === "step" ? await this.#step(rows, body, noise) : this.#scores(rows, body, noise);
    } catch (error) {
      // Of a module that is traced jax-js may still compile no kernel, as of float16: there is no line any more.
      throw ModelError.from(error, this.#file, `compiling ${this.#file}`);
    }
  }

  async #load({ source, file, parameters, arrays }: Extract<Request, { do: "load" }>): Promise<Reply> {
    await useDevice(DEVICE);
    this.#file = file;
    const { loss, metrics, preprocess } = (this.#module = await loadModule(source, file));
    this.#layout = { parameters, arrays };
    const found = Object.entries({ loss, metrics, preprocess }).filter(([, value]) => value !== null);
    return { header: { exports: found.map(([name]) => name) } };
  }

  async #step(rows: number, body: Uint8Array<ArrayBuffer>, key: Uint32Array<ArrayBuffer>): Promise<Reply> {
    const executor = await Executor.ofModule(this.#model(rows), DEVICE);
    const gradient = new Float32Array(this.#parameters.length);
    try {
      const loss = await executor.step(this.#parameters, heldRows(body, rows, this.#layout.arrays), gradient, key);
      return { header: { loss: spelled(loss) }, body: new Uint8Array(gradient.buffer) };
    } finally {
      executor.dispose();
    }
  }

  #scores(rows: number, body: Uint8Array<ArrayBuffer>, key: Uint32Array<ArrayBuffer>): Reply {
    const { parameters, arrays } = this.#layout;
    const model = this.#model(rows);
    // One jit serves all numbers of rows: it traces again where shapes differ.
    this.#score ??= jit((w: np.Array[], batch: np.Array[], noise: np.Array) => model.scores(w, batch, noise));
    const scores = this.#score(
      parameterArrays(this.#parameters, parameters.map(parameterType), DEVICE),
      batchArrays(heldRows(body, rows, arrays), arrays.map((array) => rowsType(array, rows)), DEVICE),
      keyArray(key, DEVICE),
    );
    const values = Object.entries(scores).map(([name, value]) => [name, spelled(value.dataSync()[0]!)]);
    return { header: { scores: Object.fromEntries(values) } };
  }

  #model(rows: number): ModuleModel {
    if (!this.#module) throw new ModelError("a module is loaded first");
    const { parameters, arrays } = this.#layout;
    return new ModuleModel(this.#module, { parameters: [...parameters], batch: { rows, arrays: [...arrays] } });
  }
}
