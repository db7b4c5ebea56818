"""Digits as pens draw them: strokes along the lines of scikit-learn's 8x8 digits, which 13 people wrote."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

Stroke = list[list[float]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The neighbours of a pixel, clockwise from the one above."""

ENLARGED = 5


def drawn_digits(first: int, count: int) -> list[tuple[list[Stroke], int]]:
    """Drawings and what they show. Those of one writer follow each other: each has drawn some 130 of 1,797."""
    digits = load_digits()
    images, labels = (array[first : first + count] for array in (digits.images, digits.target))
    return [(strokes_of(image / 16), int(digit)) for image, digit in zip(images, labels, strict=True)]


def strokes_of(image: np.ndarray[Any, Any]) -> list[Stroke]:
    """The lines of an image of ink, from 0 to 1; points are `[x, y]` as shares of its side."""
    large = np.pad(zoom(np.pad(image, 1), ENLARGED, order=3) > 0.5, 1)
    thin = thinned(large)
    side = large.shape[0]
    strokes = []
    left = {(int(y), int(x)) for y, x in np.argwhere(thin)}
    while left:
        path = _walk(left, _ending(left))
        if len(path) > 2:
            strokes.append([[round(x / side, 4), round(y / side, 4)] for y, x in (*path[:-1:2], path[-1])])
    return strokes


def thinned(ink: Mask) -> Mask:
    """The lines of `ink`, one pixel wide (Zhang and Suen, 1984). Its edge must be empty."""
    ink, changed = ink.copy(), True
    while changed:
        changed = False
        for first in (True, False):
            ring = [np.roll(ink, (-y, -x), (0, 1)) for y, x in AROUND]
            up, right, down, left = ring[::2]
            count = np.sum(ring, axis=0)
            starts = np.sum([~a & b for a, b in pairwise([*ring, ring[0]])], axis=0)
            corner = (
                ~(up & right & down) & ~(right & down & left) if first else ~(up & right & left) & ~(up & down & left)
            )
            gone = ink & (count >= 2) & (count <= 6) & (starts == 1) & corner
            changed |= bool(gone.any())
            ink &= ~gone
    return ink


def _ending(left: set[tuple[int, int]]) -> tuple[int, int]:
    """Where a pen would begin: the highest end of a line, or of a ring its highest pixel."""
    return min(left, key=lambda at: (len(_next_to(left, at)) > 1, at))


def _next_to(left: set[tuple[int, int]], at: tuple[int, int]) -> list[tuple[int, int]]:
    return [there for y, x in AROUND if (there := (at[0] + y, at[1] + x)) in left]


def _walk(left: set[tuple[int, int]], at: tuple[int, int]) -> list[tuple[int, int]]:
    """Follows a line as straight as it goes, and takes it out of what is `left`."""
    path = [at]
    left.discard(at)
    while found := _next_to(left, at):
        before = path[-5] if len(path) > 4 else path[0]
        ahead = (2 * at[0] - before[0], 2 * at[1] - before[1])
        at = min(found, key=lambda there: (there[0] - ahead[0]) ** 2 + (there[1] - ahead[1]) ** 2)
        left.discard(at)
        path.append(at)
    return path
