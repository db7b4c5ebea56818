// Compiles and runs a module's text. Traces nothing.

import { SourceTextModule } from "node:vm";

import { ModelError } from "../src/errors";
import { readModule, type ModelModule } from "../src/executor/module";

/** What browsers do not have, or what a model has no use for. Not a wall: that is Node's permission model. */
const NOT_FOR_MODELS = ["process", "Buffer", "global", "require", "setImmediate", "clearImmediate", "fetch", "WebSocket", "EventSource"];

/** Takes from this process what a browser's worker would not give a model, so that it fails here as it would there. */
export function becomeBrowser(): void {
  for (const name of NOT_FOR_MODELS) Reflect.deleteProperty(globalThis, name);
}

/**
 * Runs a module's text.
 *
 * @throws SyntaxError as it is: only an uncaught one is printed with its line
 * @throws ModelError when it imports something, fails while it runs, or lacks a loss
 */
export async function loadModule(source: string, file: string): Promise<ModelModule> {
  const module = new SourceTextModule(source, { identifier: file });
  await module.link((specifier: string) => {
    throw new ModelError(`${file} imports "${specifier}"; a model imports nothing: bundle it, or take what \`loss\` is passed`);
  });
  try {
    await module.evaluate();
  } catch (error) {
    throw ModelError.from(error, file, file);
  }
  return readModule(module.namespace as Record<string, unknown>, file);
}
