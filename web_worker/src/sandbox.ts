// Runs a worker in a frame of its own origin, which has no cookies, no storage and no network. The frame's side is sandbox-frame.ts.

import { Relay } from "./relay";
import type { FromSandbox, FromWorker, ToSandbox, ToWorker } from "./worker-messages";

/** A frame that could not load its script says nothing. */
const LOAD_MILLISECONDS = 20_000;

/** As much of a Worker as a page uses. */
export interface Host {
  onmessage: ((event: MessageEvent<FromWorker>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  postMessage(message: ToWorker): void;
  terminate(): void;
}

/** A frame without `allow-same-origin` has an opaque origin; what the policy does not name is not loaded. */
const page = (base: string): string => {
  const policy = `default-src 'none'; script-src ${new URL(base).origin} blob: 'wasm-unsafe-eval'; worker-src blob:; connect-src blob: data:`;
  const quoted = (text: string): string => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  return `<!doctype html><meta http-equiv="Content-Security-Policy" content="${quoted(policy)}"><script src="${quoted(base)}assets/sandbox-frame.js"></script>`;
};

/** A worker for a job whose model is a module, from the gateway at `base`. */
export class Sandbox implements Host {
  onmessage: Host["onmessage"] = null;
  onerror: Host["onerror"] = null;
  readonly #channel = new MessageChannel();
  readonly #relay: Relay;
  readonly #frame = document.createElement("iframe");
  readonly #timer = setTimeout(() => this.#fail("The sandbox did not load."), LOAD_MILLISECONDS);
  #isTerminated = false;

  constructor(readonly base: string) {
    const port = this.#channel.port1;
    this.#relay = new Relay(base, (message, transfer) => port.postMessage(message, transfer));
    port.onmessage = ({ data }: MessageEvent<FromSandbox>) => this.#hear(data);
    this.#frame.setAttribute("sandbox", "allow-scripts");
    // Multi-threaded WebAssembly, where the page has it.
    this.#frame.setAttribute("allow", "cross-origin-isolated");
    this.#frame.style.display = "none";
    this.#frame.title = "CrowdLearn replica";
    this.#frame.srcdoc = page(base);
    this.#frame.onload = () => void this.#fill();
    document.body.append(this.#frame);
  }

  postMessage(message: ToWorker): void {
    // Kept by the port until the worker listens.
    this.#channel.port1.postMessage(message satisfies ToSandbox);
  }

  terminate(): void {
    this.#isTerminated = true;
    clearTimeout(this.#timer);
    this.#relay.end();
    this.#channel.port1.close();
    this.#frame.remove();
  }

  /** The frame may fetch nothing, so it is given the worker's text. */
  async #fill(): Promise<void> {
    try {
      const answer = await fetch(`${this.base}assets/sandbox-worker.js`);
      if (!answer.ok) throw new Error(`expected ${answer.url} to answer 200, got ${answer.status}`);
      const source = await answer.text();
      if (!this.#isTerminated) this.#frame.contentWindow?.postMessage({ source }, "*", [this.#channel.port2]);
    } catch (error) {
      this.#fail(String(error));
    }
  }

  #hear(message: FromSandbox): void {
    if (this.#relay.hear(message)) return;
    if (message.type === "loaded") clearTimeout(this.#timer);
    else this.onmessage?.(new MessageEvent("message", { data: message as FromWorker }));
  }

  #fail(message: string): void {
    clearTimeout(this.#timer);
    if (!this.#isTerminated) this.onerror?.(new ErrorEvent("error", { message }));
  }
}
