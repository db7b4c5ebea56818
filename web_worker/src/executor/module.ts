// Makes a model of an ES module (docs/modules.md): what its functions are given, what they have to return, who is to
// blame when they fail. Fetches and imports nothing.

import { lax, nn, numpy as np, random, valueAndGrad } from "@jax-js/jax";

import { ModelError } from "../errors";
import type { BatchLayout, ParameterArray } from "../protocol";

/** Arrays by name, nested as the job's parameters are. Reading an array hands out an owner of it. */
export interface Tree { readonly [name: string]: np.Array | Tree }

/** What a module's functions take after parameters and batch. */
export interface Context {
  readonly np: typeof np;
  readonly nn: typeof nn;
  readonly lax: typeof lax;
  readonly random: typeof random;
  /** A random key, new for every minibatch. */
  readonly key: np.Array;
}

type Loss = (params: Tree, batch: Tree, context: Context) => unknown;
type Preprocess = (batch: Tree, context: Context) => unknown;

/** A module whose exports are functions of the right names. */
export interface ModelModule {
  /** Its name for people: `model.js`. */
  readonly file: string;
  readonly loss: Loss;
  readonly metrics: Loss | null;
  readonly preprocess: Preprocess | null;
}

/** The arrays that a module's functions are given. */
export interface ModelLayout {
  readonly parameters: readonly Pick<ParameterArray, "name" | "shape">[];
  readonly batch: BatchLayout;
}

export const LOSS = "loss";
const OPTIONAL = ["metrics", "preprocess"] as const;

/** Reads a module's exports; throws ModelError when one is missing or no function. */
export function readModule(exports: Readonly<Record<string, unknown>>, file: string): ModelModule {
  const has = Object.keys(exports).join(", ") || "nothing";
  if (typeof exports[LOSS] !== "function") {
    throw new ModelError(`${file} expects \`export function loss(params, batch, { np, nn })\`, got exports of ${has}`);
  }
  for (const name of OPTIONAL) {
    const value = exports[name];
    if (value !== undefined && typeof value !== "function") {
      throw new ModelError(`${file} expects ${name} to be a function, got ${typeof value}`);
    }
  }
  const { loss, metrics = null, preprocess = null } = exports;
  return { file, loss: loss as Loss, metrics: metrics as Loss | null, preprocess: preprocess as Preprocess | null };
}

/** Puts the getters of `array` on `target`: whoever reads it owns what he reads, so that nobody has to write `.ref`. */
function give(target: object, name: string, array: np.Array): void {
  Object.defineProperty(target, name, { enumerable: true, get: () => array.ref });
}

interface Branch { readonly children: Map<string, Branch | number> }

function branchesOf(names: readonly string[]): Branch {
  const root: Branch = { children: new Map() };
  names.forEach((name, index) => {
    const path = name.split("/");
    const last = path.pop()!;
    let branch = root;
    for (const step of path) {
      const next = branch.children.get(step);
      const inner: Branch = typeof next === "object" ? next : { children: new Map() };
      branch.children.set(step, inner);
      branch = inner;
    }
    branch.children.set(last, index);
  });
  return root;
}

function grow({ children }: Branch, arrays: readonly np.Array[]): Tree {
  const isList = [...children.keys()].every((name, index) => name === String(index));
  const tree: Record<string, Tree> = isList ? ([] as unknown as Record<string, Tree>) : {};
  for (const [name, child] of children) {
    if (typeof child === "number") give(tree, name, arrays[child]!);
    else tree[name] = grow(child, arrays);
  }
  return tree;
}

/** Arranges arrays by names such as `W1` or `layers/0/w`; numbers from 0 make a list. */
export function arrange(names: readonly string[], arrays: readonly np.Array[]): Tree {
  return grow(branchesOf(names), arrays);
}

/** How many calls an error names: a module's line lies below a dozen or more of jax-js's, and V8 would name ten. */
const DEEPEST_CALL = 100;

/** Calls one of the module's functions; whatever it throws becomes a ModelError with the module's line. */
function call<T>(file: string, name: string, run: () => T): T {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = DEEPEST_CALL;
  try {
    return run();
  } catch (error) {
    throw ModelError.from(error, file, `${name} of ${file}`);
  } finally {
    Error.stackTraceLimit = limit;
  }
}

function requirePlain(value: unknown, what: string): Record<string, unknown> {
  if (value instanceof Promise) throw new ModelError(`${what} expects a function that is not async, got a promise`);
  if (typeof value === "object" && value !== null && !isArray(value)) return { ...value };
  throw new ModelError(`${what} returns ${what.startsWith("metrics") ? "scalars" : "arrays"} by name, got ${described(value)}`);
}

function isArray(value: unknown): value is np.Array {
  return typeof value === "object" && value !== null && "shape" in value && "dtype" in value;
}

function described(value: unknown): string {
  if (isArray(value)) return `${value.dtype}[${value.shape.join()}]`;
  return value instanceof Promise ? "a promise: it must not be async" : value === null ? "null" : typeof value;
}

/** A scalar as float32; numbers of JavaScript will do where they are constant. */
function scalar(value: unknown, what: string): np.Array {
  if (typeof value === "number") return np.array(value);
  if (!isArray(value) || value.ndim !== 0) throw new ModelError(`${what} expects a scalar, got ${described(value)}`);
  return value.astype(np.float32);
}

/** The functions of one module on arrays, to be traced by jit: what they leave behind is then no memory. */
export class ModuleModel {
  readonly #names: readonly string[];
  readonly #arrays: readonly string[];

  constructor(readonly module: ModelModule, readonly layout: ModelLayout) {
    this.#names = layout.parameters.map(({ name }) => name);
    this.#arrays = layout.batch.arrays.map(({ name }) => name);
  }

  /** The loss of a minibatch, then its gradients, one for each parameter. */
  gradient(parameters: np.Array[], batch: np.Array[], key: np.Array): np.Array[] {
    const context = contextOf(key);
    const prepared = this.#prepare(batch, context);
    const lossOf = (arrays: np.Array[]): np.Array => this.#loss(arrays, prepared, context);
    // Some mistakes show only when jax-js goes back through the loss, without a line of the module's.
    const [loss, gradients] = call(this.module.file, "the gradient of loss", () => valueAndGrad(lossOf)(parameters));
    return [loss, ...gradients];
  }

  /** The loss and the metrics by name; a metric that is called `loss` takes its place: one without dropout, say. */
  scores(parameters: np.Array[], batch: np.Array[], key: np.Array): Record<string, np.Array> {
    const context = contextOf(key);
    const prepared = this.#prepare(batch, context);
    const { metrics, file } = this.module;
    const loss = this.#loss(parameters, prepared, context);
    if (!metrics) return { [LOSS]: loss };
    const found = call(file, "metrics", () => metrics(arrange(this.#names, parameters), prepared, context));
    const named = requirePlain(found, `metrics of ${file}`);
    for (const name of Object.keys(named)) requireName(name, file);
    const scalars = Object.entries(named).map(([name, value]) => [name, scalar(value, `metric ${name} of ${file}`)]);
    return { [LOSS]: loss, ...Object.fromEntries(scalars) };
  }

  #loss(arrays: np.Array[], batch: Tree, context: Context): np.Array {
    const { loss, file } = this.module;
    const value = call(file, LOSS, () => loss(arrange(this.#names, arrays), batch, context));
    if (isArray(value) && value.ndim === 0 && value.dtype === np.float32) return value;
    throw new ModelError(`loss of ${file} returns one float32, the mean loss of a minibatch, got ${described(value)}`);
  }

  #prepare(batch: np.Array[], context: Context): Tree {
    const { preprocess, file } = this.module;
    const given = {};
    this.#arrays.forEach((name, i) => give(given, name, batch[i]!));
    if (!preprocess) return given;
    const returned = requirePlain(call(file, "preprocess", () => preprocess(given, context)), `preprocess of ${file}`);
    const prepared = {};
    for (const [name, array] of Object.entries(returned)) {
      if (!isArray(array)) throw new ModelError(`preprocess of ${file} returns arrays by name, got ${described(array)} for ${name}`);
      give(prepared, name, array);
    }
    return prepared;
  }
}

function requireName(name: string, file: string): void {
  if (/^[A-Za-z_]\w*$/.test(name)) return;
  throw new ModelError(`a metric expects a name of letters, digits and _, got "${name}" from ${file}`);
}

function contextOf(key: np.Array): Context {
  const context = { np, nn, lax, random };
  give(context, "key", key);
  return context as Context;
}
