// SHA-256 (FIPS 180-4), which names chunks. Browsers have one of their own, but not for pages that come over plain HTTP.

const PRIMES: number[] = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime !== 0)) PRIMES.push(n);

/** The first 32 bits behind the point. */
const fraction = (x: number): number => (x - Math.floor(x)) * 2 ** 32;

const START = Uint32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
const CONSTANTS = Uint32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));

const turned = (x: number, bits: number): number => (x >>> bits) | (x << (32 - bits));

/** The message, a one, zeros up to a whole number of blocks of 64 bytes, and its length in bits. */
function padded(message: Uint8Array): DataView {
  const blocks = ((message.length + 8) >>> 6) + 1;
  const bytes = new Uint8Array(blocks << 6);
  bytes.set(message);
  bytes[message.length] = 0x80;
  const view = new DataView(bytes.buffer);
  view.setUint32(bytes.length - 8, Math.floor(message.length / 2 ** 29));
  view.setUint32(bytes.length - 4, message.length << 3);
  return view;
}

function compress(state: Uint32Array, schedule: Uint32Array): void {
  for (let t = 16; t < 64; t++) {
    const [x, y] = [schedule[t - 15]!, schedule[t - 2]!];
    const small = turned(x, 7) ^ turned(x, 18) ^ (x >>> 3);
    const large = turned(y, 17) ^ turned(y, 19) ^ (y >>> 10);
    schedule[t] = schedule[t - 16]! + small + schedule[t - 7]! + large;
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number];
  for (let t = 0; t < 64; t++) {
    const choice = (e & f) ^ (~e & g);
    const first = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + choice + CONSTANTS[t]! + schedule[t]!) | 0;
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const second = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i]! += word));
}

/** The digest as 64 hex digits, computed here. */
export function digest(message: Uint8Array): string {
  const view = padded(message);
  const [state, schedule] = [START.slice(), new Uint32Array(64)];
  for (let block = 0; block < view.byteLength; block += 64) {
    for (let t = 0; t < 16; t++) schedule[t] = view.getUint32(block + 4 * t);
    compress(state, schedule);
  }
  return Array.from(state, (word) => word.toString(16).padStart(8, "0")).join("");
}

/** The digest as 64 hex digits, by the browser's own code where it has some. */
export async function sha256(message: ArrayBuffer): Promise<string> {
  const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (!subtle) return digest(new Uint8Array(message));
  const bytes = new Uint8Array(await subtle.digest("SHA-256", message));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
