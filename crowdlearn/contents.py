"""The contents of a run: the names of its training chunks, in order. A chunk's name is the SHA-256 of its bytes."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from crowdlearn.errors import JobError

NAME_BYTES = 32


def name_of(body: bytes) -> str:
    """The name of a chunk, or of a run's contents: 64 hex digits."""
    return sha256(body).hexdigest()


class Contents:
    """The names in `data`, NAME_BYTES each. Equal chunks have equal names.

    Raises:
        JobError: `data` is no whole number of names.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) % NAME_BYTES:
            raise JobError(f"a run's contents expect a multiple of {NAME_BYTES} bytes, got {len(data):,}")
        self.data = data

    def __len__(self) -> int:
        return len(self.data) // NAME_BYTES

    @cached_property
    def own_name(self) -> str:
        """The name of the contents themselves."""
        return name_of(self.data)

    def name(self, index: int) -> str:
        """The name of chunk `index`."""
        return self.data[index * NAME_BYTES : (index + 1) * NAME_BYTES].hex()

    def index(self, name: str) -> int | None:
        """Where a chunk of that name is, a valid one; None if there is none."""
        beginnings, order = self._sorted
        wanted = np.uint64(int(name[:16], 16))
        for at in range(int(np.searchsorted(beginnings, wanted)), len(order)):
            if beginnings[at] != wanted:
                return None
            if self.name(int(order[at])) == name:
                return int(order[at])
        return None

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """The first 8 bytes of each name in their order, and whose they are: a tenth of a dictionary."""
        beginnings = np.frombuffer(self.data, ">u8").reshape(-1, NAME_BYTES // 8)[:, 0].astype(np.uint64)
        order = np.argsort(beginnings, kind="stable")
        return beginnings[order], order
