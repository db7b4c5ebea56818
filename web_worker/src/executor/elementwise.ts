// The primitives that work element by element. jax-js broadcasts scalars, as docs/program.md asks.

import { DType, lax, nn, numpy as np } from "@jax-js/jax";

import { integer } from "../schema";
import { settled } from "./computed";
import { binary, heldAs, input, unary, type Rule, type Site } from "./rule";

const isFloat = (x: np.Array): boolean => x.dtype === DType.Float32;

/** x^y by squaring; a gradient asks for powers like 2 and -1, where exp(y log x) would lose digits and signs. */
function integerPower(x: np.Array, exponent: number): np.Array {
  if (exponent === 0) return np.onesLike(x);
  if (exponent < 0) return np.reciprocal(integerPower(x, -exponent));
  if (exponent === 1) return x;
  const half = integerPower(x, exponent >> 1);
  return exponent % 2 ? half.ref.mul(half).mul(x.ref) : half.ref.mul(half);
}

// Consumes x once whatever the exponent: the recursion shares it by reference.
function power(x: np.Array, exponent: number): np.Array {
  if (exponent === 1) return x;
  const result = integerPower(x.ref, exponent);
  x.dispose();
  return result;
}

/** lax.pow: 0^0 is 1, where exp(y log x) gives NaN. */
function pow(x: np.Array, y: np.Array): np.Array {
  const exponent = y.astype(DType.Float32);
  return np.where(exponent.ref.equal(0), 1, np.power(x, exponent));
}

/** Precise near 0 too, where (1 - e^-2x) / (1 + e^-2x) cancels. */
function tanh(x: np.Array): np.Array {
  const shrunk = settled(np.expm1(settled(np.abs(x.ref).mul(-2))));
  const size = shrunk.ref.neg().div(shrunk.add(2));
  return np.where(x.less(0), size.ref.neg(), size);
}

/** (e^x - e^-x) / 2 by expm1, precise near 0 too. */
function sinh(x: np.Array): np.Array {
  return settled(np.expm1(x.ref)).sub(np.expm1(settled(x.neg()))).mul(0.5);
}

/** lax.sign: NaN and zeros pass through. */
function sign(x: np.Array): np.Array {
  return np.where(x.ref.greater(0), 1, np.where(x.ref.less(0), -1, x));
}

function horner(w: np.Array, coefficients: readonly number[]): np.Array {
  const [first, ...rest] = coefficients;
  let sum = w.ref.mul(0).add(first!);
  for (const coefficient of rest) sum = sum.mul(w.ref).add(coefficient);
  w.dispose();
  return sum;
}

// Giles 2010, "Approximating the erfinv function": the same single-precision polynomials as XLA's.
const CENTRAL = [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941];
const TAIL = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682];

function erfInv(x: np.Array): np.Array {
  const w = settled(np.log1p(settled(x.ref.mul(x.ref).neg())).neg());
  const isCentral = w.ref.less(5);
  const central = horner(w.ref.sub(2.5), CENTRAL);
  const tail = horner(settled(np.sqrt(np.maximum(w, 5)).sub(3)), TAIL);
  const inside = np.where(isCentral, central, tail).mul(x.ref);
  const size = np.abs(x.ref);
  // What a GPU makes of a NaN in the maximum above is a number.
  return np.where(size.ref.less(1), inside, np.where(size.equal(1), x.mul(Infinity), NaN));
}

/** A shift of which a step by 32 bits or more, or by fewer than none, leaves nothing. */
function shift(move: (x: np.Array, by: np.Array, output: { readonly dtype: DType }) => np.Array): Rule {
  return binary((x, y, site) => {
    const { dtype } = x;
    const by = site.uniforms[1];
    if (by !== null && by !== undefined && by >= 0 && by < 32) return move(x, y, { dtype });
    const isInside = y.ref.view(DType.Uint32).less(np.array(32, { dtype: DType.Uint32 }));
    const inside = np.where(isInside.ref, y, np.array(0, { dtype: y.dtype }));
    return np.where(isInside, move(x, inside, { dtype }), np.array(0, { dtype }));
  });
}

/** Shifts in copies of the sign, of which a step by 32 bits or more leaves nothing else. jax-js shifts in zeros. */
const shiftArithmetically: Rule = binary((x, y) => {
  const { dtype } = x;
  const by = np.minimum(y.view(DType.Uint32), np.array(31, { dtype: DType.Uint32 }));
  const bits = x.view(DType.Int32);
  const isNegative = bits.ref.less(0);
  const flipped = np.where(isNegative.ref, np.invert(bits.ref), bits).view(DType.Uint32);
  const moved = np.rightShift(flipped, by).view(DType.Int32);
  return np.where(isNegative, np.invert(moved.ref), moved).view(dtype);
});

/** Integers as divisors that stop no backend: WebAssembly traps at 0, and at -1 below -2^31. Consumes y. */
function safeDivisor(y: np.Array): { safe: np.Array; isZero: np.Array; isMinusOne: np.Array } {
  const isZero = y.ref.equal(0);
  const isMinusOne = y.dtype === DType.Int32 ? y.ref.equal(-1) : np.zeros(y.shape, { dtype: DType.Bool });
  const safe = np.where(np.logicalOr(isZero.ref, isMinusOne.ref), np.array(1, { dtype: y.dtype }), y);
  return { safe, isZero, isMinusOne };
}

/** Whether a rule of two operands divides floats, or by a constant that needs no care. */
const dividesPlainly = (x: np.Array, { uniforms }: Site): boolean =>
  isFloat(x) || (typeof uniforms[1] === "number" && uniforms[1] !== 0 && uniforms[1] !== -1);

/** lax.div: towards zero for integers, of which x / 0 is -1, all bits set. */
const divide: Rule = binary((x, y, site) => {
  if (dividesPlainly(x, site)) return x.div(y);
  const { safe, isZero, isMinusOne } = safeDivisor(y);
  const { dtype } = x;
  const quotient = np.where(isMinusOne, x.ref.neg(), x.div(safe));
  return np.where(isZero, np.array(-1, { dtype: DType.Int32 }).view(dtype), quotient);
});

/** lax.rem: of the sign of x; x rem 0 is x for integers. */
const remainder: Rule = binary((x, y, site) => {
  if (dividesPlainly(x, site)) return x.mod(y);
  const { safe, isZero, isMinusOne } = safeDivisor(y);
  isMinusOne.dispose();
  return np.where(isZero, x.ref, x.mod(safe));
});

const convert: Rule = unary((x, { output, inputTypes }) => {
  if (output.dtype !== "bool") return x.astype(heldAs(output.dtype));
  return inputTypes[0]?.dtype === "bool" ? x : x.notEqual(0);
});

const select: Rule = (inputs, site) =>
  np.where(input(inputs, 0, site), input(inputs, 2, site), input(inputs, 1, site));

const clamp: Rule = (inputs, site) =>
  np.minimum(np.maximum(input(inputs, 1, site), input(inputs, 0, site)), input(inputs, 2, site));

export const ELEMENTWISE: Readonly<Record<string, Rule>> = {
  add: binary((x, y) => x.add(y)),
  sub: binary((x, y) => x.sub(y)),
  mul: binary((x, y) => x.mul(y)),
  div: divide,
  max: binary((x, y) => np.maximum(x, y)),
  min: binary((x, y) => np.minimum(x, y)),
  pow: binary(pow),
  rem: remainder,
  atan2: binary((y, x) => np.atan2(y, x)),
  eq: binary((x, y) => x.equal(y)),
  ne: binary((x, y) => x.notEqual(y)),
  lt: binary((x, y) => x.less(y)),
  le: binary((x, y) => x.lessEqual(y)),
  gt: binary((x, y) => x.greater(y)),
  ge: binary((x, y) => x.greaterEqual(y)),
  and: binary((x, y) => np.bitwiseAnd(x, y)),
  or: binary((x, y) => np.bitwiseOr(x, y)),
  xor: binary((x, y) => np.bitwiseXor(x, y)),
  not: unary((x) => np.invert(x)),
  shift_left: shift((x, by) => np.leftShift(x, by)),
  shift_right_logical: shift((x, by, { dtype }) => np.rightShift(x.view(DType.Uint32), by.view(DType.Uint32)).view(dtype)),
  shift_right_arithmetic: shiftArithmetically,
  population_count: unary((x, { output }) => np.bitwiseCount(x.view(DType.Uint32)).astype(heldAs(output.dtype))),
  bitcast_convert_type: unary((x, { output }) => x.view(heldAs(output.dtype))),
  neg: unary((x) => x.neg()),
  abs: unary((x) => np.abs(x)),
  sign: unary(sign),
  floor: unary((x) => np.floor(x)),
  ceil: unary((x) => np.ceil(x)),
  round: unary((x) => np.rint(x)),
  exp: unary((x) => np.exp(x)),
  exp2: unary((x) => np.exp2(x)),
  expm1: unary((x) => np.expm1(x)),
  log: unary((x) => np.log(x)),
  log1p: unary((x) => np.log1p(x)),
  sqrt: unary((x) => np.sqrt(x)),
  rsqrt: unary((x) => np.reciprocal(np.sqrt(x))),
  cbrt: unary((x) => np.cbrt(x)),
  square: unary((x) => np.square(x)),
  sin: unary((x) => np.sin(x)),
  cos: unary((x) => np.cos(x)),
  tan: unary((x) => np.tan(x)),
  tanh: unary(tanh),
  sinh: unary(sinh),
  cosh: unary((x) => np.cosh(x)),
  logistic: unary((x) => nn.sigmoid(x)),
  erf: unary((x) => lax.erf(x)),
  erfc: unary((x) => lax.erfc(x)),
  erf_inv: unary(erfInv),
  is_finite: unary((x) => (isFloat(x) ? np.isfinite(x) : x.ref.equal(x))),
  integer_pow: unary((x, site) => power(x, site.option("y", integer()))),
  select_n: select,
  clamp,
  convert_element_type: convert,
  stop_gradient: unary((x) => x),
  copy: unary((x) => x),
};
