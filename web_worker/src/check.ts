// Runs a model in the page that loads this, and times it: for `crowdlearn check`, tests and benchmarks. No replica loads it.

import type { Device } from "@jax-js/jax";

import { Executor, type BatchData, type Floats } from "./executor/executor";
import { ModuleModel, type ModelLayout } from "./executor/module";
import { readProgram, type ValueType } from "./program";
import { describeAdapter, isRealGpu, isSoftware } from "./replica/device";
import { importModule } from "./replica/module-import";

/** A program with its inputs; bytes as base64, little-endian. */
export interface Case {
  /** JSON: docs/program.md. With `module` the text of one: docs/modules.md. */
  readonly program: string;
  /** What a module's functions are given; null for a program. */
  readonly module: ModelLayout | null;
  /** The flat vector, float32. */
  readonly parameters: string;
  /** For each batch input float32, int32 or uint32, whichever holds its type; booleans as 0 and 1. */
  readonly batch: readonly string[];
  /** The minibatch's random key, two words. */
  readonly key: readonly number[];
}

export interface Answer {
  readonly loss: number;
  /** The flat gradient, float32, as base64. */
  readonly gradient: string;
  /** The first step, which compiles. */
  readonly firstMilliseconds: number;
  /** Those after it, in their order. */
  readonly stepMilliseconds: readonly number[];
}

export interface Failure { readonly failure: string }

/** A backend's GPU as the browser calls it, and whether software imitates it. */
export interface BackendDescription {
  readonly name: string;
  readonly isSoftware: boolean;
}

/** What can compute one case's gradient again and again. */
interface Model {
  step(gradient: Floats): Promise<number>;
  readonly size: number;
  dispose(): void;
}

function bytesOf(base64: string): ArrayBuffer {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

function base64Of(values: Floats): string {
  const bytes = new Uint8Array(values.buffer);
  let text = "";
  // As many arguments as every engine takes.
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return btoa(text);
}

function arrayOf(base64: string, { dtype }: ValueType): BatchData {
  const bytes = bytesOf(base64);
  if (dtype === "float32") return new Float32Array(bytes);
  return dtype === "uint32" ? new Uint32Array(bytes) : new Int32Array(bytes);
}

async function executorOf({ program, module }: Case, device: Device): Promise<Executor> {
  if (!module) return Executor.create(readProgram(JSON.parse(program)), device);
  return Executor.ofModule(new ModuleModel(await importModule(program), module), device);
}

async function prepare(given: Case, device: Device): Promise<Model> {
  const executor = await executorOf(given, device);
  const parameters = new Float32Array(bytesOf(given.parameters));
  const batch = executor.batchTypes.map((type, i) => arrayOf(given.batch[i]!, type));
  const key = Uint32Array.from(given.key);
  return {
    size: parameters.length,
    step: (gradient) => executor.step(parameters, batch, gradient, key),
    dispose: () => executor.dispose(),
  };
}

/** What `start` left for `again`: a tab tries one model at a time. */
let started: Model | null = null;

/** Loss and gradient of one step; the model stays for `again`. */
export async function start(given: Case, device: Device): Promise<Answer> {
  started?.dispose();
  started = null;
  const model = await prepare(given, device);
  started = model;
  const gradient = new Float32Array(model.size);
  const first = performance.now();
  const loss = await model.step(gradient);
  const firstMilliseconds = performance.now() - first;
  return { loss, gradient: base64Of(gradient), firstMilliseconds, stepMilliseconds: [] };
}

/** How long up to `steps` more steps of the started model take within `seconds`; the model is no more. */
export async function again(steps: number, seconds: number): Promise<number[]> {
  const model = started;
  if (!model) throw new Error("again expects a model that was started");
  started = null;
  try {
    const gradient = new Float32Array(model.size);
    const stepMilliseconds: number[] = [];
    for (const end = performance.now() + 1000 * seconds; stepMilliseconds.length < steps && performance.now() < end; ) {
      const begun = performance.now();
      await model.step(gradient);
      stepMilliseconds.push(performance.now() - begun);
    }
    return stepMilliseconds;
  } finally {
    model.dispose();
  }
}

/** Loss and gradient of one step, and how long it and up to `steps` more take within `seconds`. */
export async function run(given: Case, device: Device, steps: number, seconds: number): Promise<Answer> {
  try {
    const answer = await start(given, device);
    return { ...answer, stepMilliseconds: await again(steps, seconds) };
  } finally {
    started?.dispose(); // where the first step failed
    started = null;
  }
}

/** Each case's answer, or why it has none. */
export async function runAll(cases: readonly Case[], device: Device): Promise<(Answer | Failure)[]> {
  const answers: (Answer | Failure)[] = [];
  for (const each of cases) {
    answers.push(await run(each, device, 0, 0).catch(({ message }: Error): Failure => ({ failure: message })));
  }
  return answers;
}

function webglRenderer(): string | null {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return null;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  return String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
}

/** What a backend would run on; null when this browser does not have it. */
export async function describe(device: Device): Promise<BackendDescription | null> {
  if (device === "webgpu") {
    const adapter = await describeAdapter();
    if (!adapter) return null;
    const name = [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(" ");
    return { name, isSoftware: !isRealGpu(adapter) };
  }
  if (device === "webgl") {
    const name = webglRenderer();
    return name === null ? null : { name, isSoftware: isSoftware(name) };
  }
  return { name: "processor", isSoftware: false };
}
