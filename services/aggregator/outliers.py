"""Tells gradients that are huge beside those of a shard's other replicas, where no clipping bounds them. Pure."""

from __future__ import annotations

import statistics

REPLICAS = 64
"""So many replicas' last norms say what is usual. One each: whoever pushes most does not say it alone. That of a
gradient that was dropped is among them: where those of most are as large, none is huge, and what diverges does so."""

ENOUGH = 8
"""Gradients that have come before one is judged."""

FACTOR = 1000.0
"""So many times the median is huge: gradients of minibatches differ tenfold, and those of a model that begins to
diverge grow by less from one to the next."""


class Outliers:
    """The norms of the last gradients of a shard's replicas, of one minibatch each."""

    def __init__(self) -> None:
        # Ordered by when a replica was heard of: the longest silent is the first.
        self._norms: dict[str, float] = {}
        self._seen = 0

    def is_huge(self, replica: str, norm: float) -> bool:
        """Whether a gradient of this norm is to be dropped; it is remembered."""
        # The lower of two in the middle: of two replicas one does not outvote the other.
        usual = statistics.median_low(self._norms.values()) if self._seen >= ENOUGH else 0.0
        self._norms.pop(replica, None)
        self._norms[replica] = norm
        if len(self._norms) > REPLICAS:
            del self._norms[next(iter(self._norms))]
        self._seen += 1
        # Where most are zero, nobody knows what is usual.
        return 0 < FACTOR * usual < norm
