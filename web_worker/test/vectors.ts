// Reads tests/vectors/, which Python writes and both languages check.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

// The test runs from dist/test or from anywhere else: look upwards for the project's vectors.
function vectorsFolder(): string {
  for (let folder = process.cwd(); folder !== dirname(folder); folder = dirname(folder)) {
    const candidate = join(folder, "tests", "vectors");
    if (existsSync(candidate)) return candidate;
  }
  throw new Error(`expected tests/vectors above ${process.cwd()}`);
}

/** The rows of one file of vectors. */
export function rows<T>(name: string): T[] {
  return JSON.parse(readFileSync(join(vectorsFolder(), name), "utf8")) as T[];
}

export const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
export const hex = (data: Uint8Array): string => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("hex");
export const floats = (text: string): Float32Array => new Float32Array(bytes(text).buffer);
export const floatsHex = (values: Float32Array): string => hex(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
