// Turns a module's text into its functions. Fetches and traces nothing.

import { ModelError } from "../errors";
import { readModule, type ModelModule } from "../executor/module";

/** What people are told that a job's module is called: its real name stays with the operator. */
const FILE = "model.js";

/**
 * Runs a module's text as this origin's own script.
 *
 * @throws ModelError when it is no JavaScript, imports something, fails while it runs, or lacks a loss
 */
export async function importModule(source: string): Promise<ModelModule> {
  // As a Blob, not from its address: browsers remember a failed import, and the gateway may only have been away.
  const text = new Blob([source, `\n//# sourceURL=${FILE}`], { type: "text/javascript" });
  const address = URL.createObjectURL(text);
  try {
    return readModule((await import(address)) as Record<string, unknown>, FILE);
  } catch (error) {
    throw ModelError.from(error, FILE, FILE);
  } finally {
    URL.revokeObjectURL(address);
  }
}
