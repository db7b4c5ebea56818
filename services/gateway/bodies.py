"""JSON that many ask for: encoded once, and compressed once, however many there are. Knows no HTTP."""

from __future__ import annotations

import gzip
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import msgspec

from crowdlearn.spec import JobStatus

MIN_GZIP_BYTES = 1400
"""What fits into one packet gains nothing from compression."""

MAX_KEPT_BYTES = 1 << 20
"""So much of one status, before compression, is compressed and kept: 10 ms of work. Who asks for one more of the 5,000
ends of its curve gets it as it is, which is a copy."""

NO_CURVE = b'"curve":[]'


class Body:
    """One answer's bytes."""

    def __init__(self, plain: bytes, *, compressible: bool = True) -> None:
        self.plain = plain
        self._compressible = compressible and len(plain) >= MIN_GZIP_BYTES
        self._gzipped: bytes | None = None

    @property
    def gzipped(self) -> bytes | None:
        """None where compression does not pay."""
        if self._compressible and self._gzipped is None:
            # Level 1 takes most of what there is to gain.
            self._gzipped = gzip.compress(self.plain, 1)
        return self._gzipped


def encoded(value: Any) -> Body:
    """A value as JSON."""
    return Body(msgspec.json.encode(value))


class StatusBody:
    """A job's status. Every point is encoded once: what a viewer lacks of the curve is a slice of that."""

    def __init__(self, status: JobStatus) -> None:
        self._indices = [point.index for point in status.curve]
        points = [msgspec.json.encode(point) for point in status.curve]
        # A point's place in the joined text: behind the points before it, each with its comma.
        self._places = list(accumulate((len(point) + 1 for point in points), initial=0))
        self._curve = b",".join(points)
        head, _, self._tail = msgspec.json.encode(msgspec.structs.replace(status, curve=[])).rpartition(NO_CURVE)
        self._head = head + NO_CURVE[:-1]
        self._kept: dict[int, Body] = {}
        self._kept_bytes = 0

    def after(self, index: int) -> Body:
        """The status with the points whose index exceeds `index`."""
        first = bisect_right(self._indices, index)
        if first in self._kept:
            return self._kept[first]
        plain = b"".join((self._head, self._curve[self._places[first] :], b"]", self._tail))
        if self._kept_bytes + len(plain) > MAX_KEPT_BYTES:
            return Body(plain, compressible=False)
        self._kept_bytes += len(plain)
        self._kept[first] = Body(plain)
        return self._kept[first]
