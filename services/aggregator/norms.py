"""Tells what is usual of the norms of a shard's gradients, by the last of each replica. Pure."""

from __future__ import annotations

import math
import statistics

from crowdlearn.spec import CROWD

REPLICAS = 64
"""So many replicas' last norms say what is usual. One each: whoever pushes most does not say it alone. That of a
gradient that was dropped is among them: where those of most are as large, none is huge, and what diverges does so."""

ENOUGH = 8
"""Gradients that have come before one is judged."""

FACTOR = 1000.0
"""So many times the median is huge: gradients of minibatches differ tenfold, and those of a model that begins to
diverge grow by less from one to the next."""


FEW = 3
"""Of fewer replicas the job's first gradient tells what is usual as well: one or two could say it alone."""


class Norms:
    """The norms of the last gradients of a shard's replicas, each over the square root of how many minibatches it sums.

    Of minibatches that have nothing in common but noise this is the norm of one.
    """

    def __init__(self, first: float = 0.0) -> None:
        """`first` is the norm of the first minibatch's gradient at the initial parameters; 0 if it is not known."""
        self._first = first
        # Each with the number of the gradient. Ordered by when a replica was heard of: the longest silent is the first.
        self._norms: dict[str, tuple[float, int]] = {}
        self._seen = 0

    def note(self, replica: str, norm: float) -> None:
        """A gradient of this norm has come."""
        self._seen += 1
        self._norms.pop(replica, None)
        self._norms[replica] = norm, self._seen
        if len(self._norms) > REPLICAS:
            del self._norms[next(iter(self._norms))]

    def is_huge(self, norm: float, *, alone: bool = False) -> bool:
        """Whether a gradient of this norm is to be dropped.

        Of a replica that trains `alone` it is not the first gradient that tells: its model may diverge.
        """
        usual = self._median() if self._seen >= ENOUGH else 0.0
        if self._first and not alone:
            recent = self._recent()
            if self._seen < ENOUGH or len(recent) < FEW:
                # At least the first: gradients of a model near its end are small.
                usual = max(self._first, statistics.median_low([self._first, *recent]))
        # Where most are zero, nobody knows what is usual.
        return 0 < FACTOR * usual < norm

    @property
    def bound(self) -> float:
        """To what the norm of a gradient is clipped where there is a crowd: the median (AutoClip, Seetharaman et
        al. 2020, is alike). So one whose gradients are as large as clipping allows has no more weight than others.
        """
        if self._seen < ENOUGH or len(self._norms) < CROWD:
            return math.inf
        return self._median() or math.inf

    def _median(self) -> float:
        """Of the replicas of the last gradients, if these are a crowd: names that one has had before and left would
        outvote those who train, zeros stop the training, or let pass what is huge."""
        recent = self._recent()
        norms = recent if len(recent) >= CROWD else [norm for norm, _ in self._norms.values()]
        # The lower of two in the middle: of two replicas one does not outvote the other.
        return statistics.median_low(norms) if norms else 0.0

    def _recent(self) -> list[float]:
        return [norm for norm, number in self._norms.values() if number > self._seen - REPLICAS]
