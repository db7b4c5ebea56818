// Runs a model that is an ES module for the Python side: checks it before it is stored, scores held-out data.

import { Console } from "node:console";
import { stderr } from "node:process";

import { ModelError, reasonOf } from "../src/errors";
import { becomeBrowser } from "./load";
import { Model, type Request } from "./model";
import { answer, requests } from "./pipe";

// stdout carries answers: what a model logs must not get between them.
globalThis.console = new Console(stderr, stderr);

const model = new Model();
let isBrowser = false;
for await (const { header, body } of requests()) {
  // After the first read: Node makes stdin and stdout when they are first used, and needs its globals for that.
  if (!isBrowser) becomeBrowser();
  isBrowser = true;
  try {
    const reply = await model.answer(header as Request, body);
    await answer(reply.header, reply.body);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    await answer({ error: reasonOf(error) });
  }
}
