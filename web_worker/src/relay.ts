// The page's side of a sandbox's network: asks the gateway for it, and asks for nothing but what a replica needs.

import { DIRECT, type Network, type Socket } from "./replica/network";
import type { FromSandbox, ToSandbox } from "./worker-messages";

/** Behind a gateway's address: lists, statuses, programs and chunks. What runs in a sandbox may say anything. */
const ASKED = /^jobs(\/[\w%.-]+(\/[0-9a-f]{12}\/(program|predict|chunks\/([0-9a-f]{64}|\d{1,9})))?)?$/;
const OPENED = /^jobs\/[\w%.-]+\/socket$/;

/** The close code of a line that broke without a word. */
const ABNORMAL = 1006;

type Tell = (message: ToSandbox, transfer: Transferable[]) => void;

/** One sandbox's requests to the gateway at `base`, an address that ends with a slash. */
export class Relay {
  readonly #sockets = new Map<number, Socket>();

  constructor(readonly base: string, readonly tell: Tell, readonly network: Network = DIRECT) {}

  /** Does what a sandbox asks of the network; returns whether it was that. */
  hear(message: FromSandbox): boolean {
    switch (message.type) {
      case "ask": void this.#ask(message); return true;
      case "open": this.#open(message); return true;
      case "send": this.#sockets.get(message.id)?.send(message.data); return true;
      case "close": this.#sockets.get(message.id)?.close(1000); return true;
      default: return false;
    }
  }

  /** Closes all sockets: the sandbox is gone. */
  end(): void {
    for (const socket of this.#sockets.values()) {
      socket.onclose = socket.onmessage = socket.onopen = null;
      socket.close(1000);
    }
    this.#sockets.clear();
  }

  async #ask({ id, url, cache }: Extract<FromSandbox, { type: "ask" }>): Promise<void> {
    try {
      this.#require(url, this.base, ASKED);
      const response = await this.network.get(url, { cache });
      const body = await response.arrayBuffer();
      this.tell({ type: "answer", id, status: response.status, url: response.url, body }, [body]);
    } catch (error) {
      this.tell({ type: "unreachable", id, message: String(error) }, []);
    }
  }

  #open({ id, url }: Extract<FromSandbox, { type: "open" }>): void {
    try {
      this.#require(url, this.base.replace(/^http/, "ws"), OPENED);
      this.#sockets.set(id, this.#wired(id, this.network.open(url)));
    } catch (error) {
      console.warn(error);
      this.tell({ type: "closed", id, code: ABNORMAL }, []);
    }
  }

  #wired(id: number, socket: Socket): Socket {
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.tell({ type: "opened", id }, []);
    socket.onmessage = ({ data }) => this.tell({ type: "received", id, data }, typeof data === "string" ? [] : [data]);
    socket.onclose = ({ code }) => {
      this.#sockets.delete(id);
      this.tell({ type: "closed", id, code }, []);
    };
    return socket;
  }

  #require(url: string, base: string, allowed: RegExp): void {
    // Dots that lead elsewhere make another address than the one that is written.
    if (url.startsWith(base) && allowed.test(url.slice(base.length)) && new URL(url).href === url) return;
    throw new Error(`a sandbox may ask ${base} for its jobs, and asked for ${url}`);
  }
}
