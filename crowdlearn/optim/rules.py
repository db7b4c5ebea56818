"""The update rules, each beside its equation. A rule sees one block and does not know where it lies.

A gradient g is the sum over n minibatches. Adaptive rules take its second moment as g^2 / n, so that a sum over n
minibatches moves parameters sqrt(n) times as far as one over a single minibatch: the square-root scaling rule (Malladi
et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms"). With g^2 alone a replica that has to
accumulate would waste its work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.spec import OptimizerSpec

Apply = Callable[[Vector, int, Vector, Sequence[Vector], float, int, Vector], None]
"""apply(gradient, minibatches, parameters, slots, rate, step, scratch): in place; may overwrite the gradient."""


@dataclass(frozen=True)
class Rule:
    """One optimizer: what its slots start from, and how a gradient changes parameters and slots."""

    initial: tuple[float, ...]
    apply: Apply


def sgd(_: OptimizerSpec) -> Rule:
    """w -= r g"""

    def apply(g: Vector, _n: int, w: Vector, _s: Sequence[Vector], rate: float, _t: int, _tmp: Vector) -> None:
        g *= np.float32(rate)
        w -= g

    return Rule((), apply)


def momentum(spec: OptimizerSpec) -> Rule:
    """v = m v + g;  w -= r v  (Polyak 1964, as in Optax's trace)"""
    m = np.float32(spec.momentum)

    def apply(g: Vector, _n: int, w: Vector, slots: Sequence[Vector], rate: float, _t: int, tmp: Vector) -> None:
        (v,) = slots
        v *= m
        v += g
        np.multiply(v, np.float32(rate), out=tmp)
        w -= tmp

    return Rule((0.0,), apply)


def rmsprop(spec: OptimizerSpec) -> Rule:
    """s = d s + (1 - d) g^2 / n;  w -= r g / (sqrt(s) + e)  (Tieleman and Hinton 2012)"""
    d, rest, e = np.float32(spec.decay), np.float32(1 - spec.decay), np.float32(spec.epsilon)

    def apply(g: Vector, n: int, w: Vector, slots: Sequence[Vector], rate: float, _t: int, tmp: Vector) -> None:
        (s,) = slots
        _square(g, n, tmp)
        tmp *= rest
        s *= d
        s += tmp
        _descend(g, w, s, rate, e, tmp)

    return Rule((0.0,), apply)


def adagrad(spec: OptimizerSpec) -> Rule:
    """s += g^2 / n;  w -= r g / (sqrt(s) + e)  (Duchi et al. 2011; Downpour's choice in Dean et al. 2012)"""
    e = np.float32(spec.epsilon)

    def apply(g: Vector, n: int, w: Vector, slots: Sequence[Vector], rate: float, _t: int, tmp: Vector) -> None:
        (s,) = slots
        _square(g, n, tmp)
        s += tmp
        _descend(g, w, s, rate, e, tmp)

    return Rule((spec.initial_accumulator,), apply)


def adam(spec: OptimizerSpec) -> Rule:
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2 / n;  w -= r m^ / (sqrt(v^) + e)  (Kingma and Ba 2015)"""
    b1, b2, e = np.float32(spec.b1), np.float32(spec.b2), np.float32(spec.epsilon)
    rest1, rest2 = np.float32(1 - spec.b1), np.float32(1 - spec.b2)

    def apply(g: Vector, n: int, w: Vector, slots: Sequence[Vector], rate: float, t: int, tmp: Vector) -> None:
        m, v = slots
        _square(g, n, tmp)
        tmp *= rest2
        v *= b2
        v += tmp
        m *= b1
        g *= rest1
        m += g
        np.multiply(v, np.float32(1 / (1 - spec.b2**t)), out=tmp)
        np.sqrt(tmp, out=tmp)
        tmp += e
        np.divide(m, tmp, out=tmp)
        tmp *= np.float32(rate / (1 - spec.b1**t))
        w -= tmp

    return Rule((0.0, 0.0), apply)


def _square(g: Vector, n: int, out: Vector) -> None:
    np.multiply(g, g, out=out)
    if n != 1:
        out *= np.float32(1 / n)


def _descend(g: Vector, w: Vector, s: Vector, rate: float, epsilon: np.float32, tmp: Vector) -> None:
    np.sqrt(s, out=tmp)
    tmp += epsilon
    np.divide(g, tmp, out=tmp)
    tmp *= np.float32(rate)
    w -= tmp


RULES: dict[str, Callable[[OptimizerSpec], Rule]] = {
    "sgd": sgd,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
}
