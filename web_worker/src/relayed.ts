// The network of a worker in a sandbox: it asks the page around it, which asks the gateway. The page's side is relay.ts.

import type { Network, Socket } from "./replica/network";
import type { FromSandbox, ToSandbox } from "./worker-messages";

interface Question {
  readonly resolve: (response: Response) => void;
  readonly reject: (error: Error) => void;
}

const OPENING = 0;
const OPEN = 1;
const CLOSED = 3;

class RelayedSocket implements Socket {
  binaryType: BinaryType = "arraybuffer";
  readyState: number = OPENING;
  onopen: Socket["onopen"] = null;
  onclose: Socket["onclose"] = null;
  onmessage: Socket["onmessage"] = null;

  constructor(readonly id: number, readonly tell: (message: FromSandbox) => void) {}

  send(data: string | Uint8Array<ArrayBuffer>): void {
    this.tell({ type: "send", id: this.id, data });
  }

  close(): void {
    this.tell({ type: "close", id: this.id });
  }

  heard(message: Extract<ToSandbox, { type: "opened" | "received" | "closed" }>): void {
    if (message.type === "received") return this.onmessage?.(new MessageEvent("message", { data: message.data }));
    this.readyState = message.type === "opened" ? OPEN : CLOSED;
    if (message.type === "opened") this.onopen?.(new Event("open"));
    else this.onclose?.(Object.assign(new Event("close"), { code: message.code, reason: "", wasClean: false }));
  }
}

/** Answers come through `hear`. */
export class RelayedNetwork implements Network {
  /** The page asks nobody else for a sandbox: what runs there may say anything. */
  readonly reachesAll = false;
  #last = 0;
  readonly #questions = new Map<number, Question>();
  readonly #sockets = new Map<number, RelayedSocket>();

  constructor(readonly tell: (message: FromSandbox) => void) {}

  get(url: string, { cache = "default" }: RequestInit): Promise<Response> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#questions.set(id, { resolve, reject });
      this.tell({ type: "ask", id, url, cache });
    });
  }

  open(url: string): Socket {
    const socket = new RelayedSocket(++this.#last, this.tell);
    this.#sockets.set(socket.id, socket);
    this.tell({ type: "open", id: socket.id, url });
    return socket;
  }

  /** Takes what is for the network; returns whether it was. */
  hear(message: ToSandbox): boolean {
    switch (message.type) {
      case "answer": this.#answered(message); return true;
      case "unreachable": this.#take(message.id)?.reject(new TypeError(message.message)); return true;
      case "opened":
      case "received":
        this.#sockets.get(message.id)?.heard(message);
        return true;
      case "closed": {
        const socket = this.#sockets.get(message.id);
        this.#sockets.delete(message.id);
        socket?.heard(message);
        return true;
      }
      default: return false;
    }
  }

  #answered({ id, status, url, body }: Extract<ToSandbox, { type: "answer" }>): void {
    const response = new Response(body, { status });
    Object.defineProperty(response, "url", { value: url });
    this.#take(id)?.resolve(response);
  }

  #take(id: number): Question | undefined {
    const question = this.#questions.get(id);
    this.#questions.delete(id);
    return question;
  }
}
