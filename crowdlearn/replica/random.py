"""Seeded random numbers: the same seed shuffles the same way on every machine and in every language."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK = 0xFFFFFFFF


class Random:
    """xoshiro128** 1.1 (Blackman and Vigna 2018), as web_worker/src/replica/random.ts has it.

    SplitMix32 spreads small seeds over the whole state.
    """

    def __init__(self, *seeds: int) -> None:
        mixed = 0x9E3779B9
        for seed in seeds:
            mixed, z = _split(mixed)
            mixed = (z ^ seed) & MASK
        state = []
        for _ in range(4):
            mixed, z = _split(mixed)
            state.append(z)
        self._a, self._b, self._c, self._d = state

    def bits(self) -> int:
        """A whole number of 32 random bits."""
        a, b, c, d = self._a, self._b, self._c, self._d
        scrambled = (b * 5) & MASK
        result = ((scrambled << 7 | scrambled >> 25) * 9) & MASK
        c ^= a
        d ^= b
        self._b = b ^ c
        self._a = a ^ d
        self._c = c ^ ((b << 9) & MASK)
        self._d = ((d << 11) | (d >> 21)) & MASK
        return result

    def uniform(self) -> float:
        """A number in [0, 1) that float32 holds exactly: 24 bits."""
        return (self.bits() >> 8) * 2.0**-24

    def permutation(self, count: int) -> NDArray[np.intp]:
        """0 to count - 1 in random order (Fisher and Yates)."""
        order = list(range(count))
        for i in range(count - 1, -1, -1):
            # floor(uniform * (i + 1)), in whole numbers
            j = ((self.bits() >> 8) * (i + 1)) >> 24
            order[i], order[j] = order[j], order[i]
        return np.array(order, np.intp)


def _split(mixed: int) -> tuple[int, int]:
    """The next state of SplitMix32 and its number."""
    mixed = (mixed + 0x9E3779B9) & MASK
    z = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & MASK
    z = ((z ^ (z >> 13)) * 0xC2B2AE35) & MASK
    return mixed, z ^ (z >> 16)
