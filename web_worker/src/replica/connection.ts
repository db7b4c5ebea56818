// One websocket: counts its bytes and passes on what comes. Understands no message.

import type { Socket } from "./network";
import { now } from "./scheduling";

/** A WebSocket's `readyState`. */
const OPEN = 1;

export interface Listener {
  opened(): void;
  text(data: string): void;
  frame(data: ArrayBuffer): void;
  closed(code: number): void;
}

/** An open or opening websocket. After `closed` it is done. */
export class Connection {
  bytesUp = 0;
  bytesDown = 0;
  /** Resolves when the socket is closed. */
  readonly done: Promise<void>;
  readonly #socket: Socket;
  #openedAtMilliseconds = Infinity;

  constructor(socket: Socket, listener: Listener) {
    this.#socket = socket;
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      this.#openedAtMilliseconds = now();
      listener.opened();
    };
    this.done = new Promise((resolve) => {
      this.#socket.onclose = (event) => {
        resolve();
        listener.closed(event.code);
      };
    });
    this.#socket.onmessage = (event) => this.#received(event.data, listener);
  }

  /** How long it has been open; negative when it never was. */
  get lastedMilliseconds(): number {
    return now() - this.#openedAtMilliseconds;
  }

  /** Sends, or drops what a closed socket cannot send: whoever needs an answer asks again after the reconnect. */
  send(data: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState !== OPEN) return;
    this.#socket.send(data);
    this.bytesUp += data.length;
  }

  close(): void {
    this.#socket.close(1000);
  }

  #received(data: string | ArrayBuffer, listener: Listener): void {
    if (typeof data === "string") {
      this.bytesDown += data.length;
      listener.text(data);
    } else {
      this.bytesDown += data.byteLength;
      listener.frame(data);
    }
  }
}
