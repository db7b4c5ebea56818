// Messages on stdin and stdout, one answer a request: u32 length of a JSON header, u32 length of a body, header, body.
// The other end is crowdlearn/module/process.py. Knows no model.

import { Buffer } from "node:buffer";
import { stdin, stdout } from "node:process";

export interface Message { readonly header: unknown; readonly body: Uint8Array<ArrayBuffer> }

const HEAD_BYTES = 8;

/** Reads a stream by numbers of bytes. */
class Bytes {
  readonly #chunks: AsyncIterator<Buffer> = stdin[Symbol.asyncIterator]();
  #rest: Buffer = Buffer.alloc(0);

  /** The next `count` bytes, in memory of their own; null at the end of the stream. */
  async take(count: number): Promise<Buffer | null> {
    const parts = [this.#rest];
    let length = this.#rest.length;
    while (length < count) {
      const { value, done } = await this.#chunks.next();
      if (done) return null;
      parts.push(value);
      length += value.length;
    }
    const all = Buffer.concat(parts);
    this.#rest = all.subarray(count);
    return all.subarray(0, count);
  }
}

/** The requests, until stdin ends. */
export async function* requests(): AsyncGenerator<Message> {
  const bytes = new Bytes();
  for (;;) {
    const head = await bytes.take(HEAD_BYTES);
    if (!head) return;
    const header = await bytes.take(head.readUInt32LE(0));
    const body = await bytes.take(head.readUInt32LE(4));
    if (!header || !body) return;
    // A copy: a view of Node's pool starts where no float may.
    yield { header: JSON.parse(header.toString()), body: Uint8Array.from(body) };
  }
}

/** Sends one answer. */
export function answer(header: object, body: Uint8Array = new Uint8Array()): Promise<void> {
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(json.length, 0);
  head.writeUInt32LE(body.length, 4);
  return new Promise((resolve, reject) => {
    stdout.write(Buffer.concat([head, json, body]), (error) => (error ? reject(error) : resolve()));
  });
}
