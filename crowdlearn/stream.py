"""A stream as a job's author writes it: rows that are made of what happens in pages. See docs/data.md, Interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from crowdlearn.dataset import KEPT, NARROWED, Array
from crowdlearn.errors import JobError
from crowdlearn.fields import at_least, count, explained, positive
from crowdlearn.protocol import BatchArray
from crowdlearn.spec import PoolPolicy, StreamSpec, TrainOn

PARTITIONS = 4
"""Streams of items of a job: so many preprocessors can share its work."""

LEASE_BATCHES = 4
"""Minibatches of a lease of the pool: fewer would be a question to the gateway for every gradient, and the rows of more
were drawn long before the last is trained on."""

MOST_POOL_BYTES = 1 << 30
"""Redis holds the pool in memory, beside everything else of a job."""

MOST_ITEM_BYTES = 512 << 10
"""An item is one message to the gateway, of which the largest has 1 MiB (CROWDLEARN_MAX_FRAME_BYTES)."""


@explained
@dataclass(frozen=True, kw_only=True)
class Stream:
    """Rows that `Job.preprocess` makes of raw items, which pages send with `replica.sendRaw(item)`.

    Raises:
        JobError: a field is not what it should be; the message says what was expected and what came.
    """

    schema: Mapping[str, tuple[str, tuple[int, ...]]]
    """Each array of a row by name: its type and shape, such as `{"x": ("float32", (28, 28)), "y": ("int32", ())}`."""
    train_on: TrainOn = "pool"
    """Who trains on fresh rows: `pool`, anybody, from all rows that are kept; `sender`, whoever sent them, at once, and
    nobody else; `both`, the sender first, and anybody later."""
    policy: PoolPolicy = "window"
    """What the pool keeps: `window`, the newest rows; `reservoir`, an even choice of all rows ever; `decay`, the
    newest, of which recent ones are leased more often."""
    pool_rows: int = 10_000
    """Rows that the pool keeps at most."""
    half_life: float | None = None
    """Of `decay`, in rows: one that is older by so many is leased half as often. None: a quarter of `pool_rows`."""
    held_out_every: int = 0
    """One item of so many is held out: its rows are scored and never trained on. By the item's bytes, so that the same
    item always falls on the same side. 0: none is."""
    held_out_rows: int = 1_000
    """Held-out rows that are kept at most, the newest."""
    keep_raw: float = 0.0
    """Seconds that raw items stay in Redis after they were processed. 0: they are deleted then."""
    max_item_bytes: int = 65_536
    """A larger item is rejected."""
    max_rows_per_item: int = 100
    """An item of which `preprocess` makes more rows is rejected."""
    items_per_second: float = 20.0
    """What a replica may send in the long run; who sends more is told when to go on."""
    bytes_per_second: float = 200_000.0
    """Likewise."""
    item_seconds: float = 5.0
    """How long `preprocess` may take for one item; after that it is ended, and the item rejected."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", {array.name: (array.dtype, array.shape) for array in _layout(self.schema)})
        for name, kind in (("train_on", TrainOn), ("policy", PoolPolicy)):
            if getattr(self, name) not in get_args(kind):
                raise JobError(f"{name} expects {' or '.join(get_args(kind))}, got {getattr(self, name)!r:.80}")
        for name, least, most in (
            ("pool_rows", PARTITIONS, MOST_POOL_BYTES // self.row_bytes),
            ("held_out_every", 0, None),
            ("held_out_rows", PARTITIONS, MOST_POOL_BYTES // self.row_bytes),
            ("max_item_bytes", 1, MOST_ITEM_BYTES),
            ("max_rows_per_item", 1, None),
        ):
            object.__setattr__(self, name, count(name, getattr(self, name), least, most))
        for name in ("items_per_second", "bytes_per_second", "item_seconds"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        object.__setattr__(self, "keep_raw", at_least("keep_raw", self.keep_raw, 0))
        if self.held_out_every == 1:
            raise JobError("held_out_every expects 0 or at least 2, got 1: nothing would be left to train")
        self._require_half_life()

    def _require_half_life(self) -> None:
        if self.half_life is None:
            return
        object.__setattr__(self, "half_life", positive("half_life", self.half_life))
        if self.policy != "decay":
            raise JobError(f"half_life {self.half_life:g} expects policy='decay', got {self.policy!r}")

    @property
    def layout(self) -> tuple[BatchArray, ...]:
        """The type and the row's shape of each array, in the order of a chunk."""
        return _layout(self.schema)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in a chunk."""
        return sum(_row_bytes(array) for array in self.layout)

    def spec(self, batch_rows: int) -> StreamSpec:
        """What services read of it, with minibatches of so many rows."""
        return StreamSpec(
            train_on=self.train_on,
            policy=self.policy,
            pool_rows=self.pool_rows,
            half_life_rows=self.pool_rows / 4 if self.half_life is None else self.half_life,
            lease_rows=LEASE_BATCHES * batch_rows,
            partitions=PARTITIONS,
            held_out_every=self.held_out_every,
            held_out_rows=self.held_out_rows,
            keep_raw_seconds=self.keep_raw,
            max_item_bytes=self.max_item_bytes,
            max_rows_per_item=self.max_rows_per_item,
            items_per_second=self.items_per_second,
            bytes_per_second=self.bytes_per_second,
            item_seconds=self.item_seconds,
        )


def made_up(layout: Sequence[BatchArray], rows: int) -> dict[str, Array]:
    """Rows where a job has none yet: floats drawn from [0, 1), and zeros, which are a class, a word or a no."""
    draws, arrays = np.random.default_rng(0), dict[str, Array]()
    for array in layout:
        shape, is_float = (rows, *array.shape), array.dtype == "float32"
        arrays[array.name] = draws.random(shape, np.float32) if is_float else np.zeros(shape, array.dtype)
    return arrays


def _layout(schema: Any) -> tuple[BatchArray, ...]:
    if not isinstance(schema, Mapping) or not schema:
        raise JobError(f"schema expects the arrays of a row by name, such as {EXAMPLE}, got {schema!r:.80}")
    for name in schema:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise JobError(f"schema expects names that are strings, such as 'x', got {name!r:.80}")
    arrays = tuple(_array(name, schema[name]) for name in sorted(schema))
    if not any(map(_row_bytes, arrays)):
        raise JobError(f"schema expects at least one value in a row, got {dict(schema)!r:.80}")
    return arrays


def _array(name: str, given: Any) -> BatchArray:
    if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[1], tuple | list):
        raise JobError(f"schema of {name} expects a type and the shape of a row, such as ('float32', (28, 28)), "
                       f"got {given!r:.80}")  # fmt: skip
    try:
        dtype = np.dtype(given[0]).name
    except TypeError:
        dtype = str(given[0])
    if dtype not in KEPT:
        instead = f": write {NARROWED[dtype]}" if dtype in NARROWED else ""
        raise JobError(f"schema of {name} expects one of {', '.join(KEPT)}, got {dtype!r:.80}{instead}")
    shape = tuple(count(f"shape of {name} in the schema", size, 0) for size in given[1])
    return BatchArray(name, dtype, shape)  # type: ignore[arg-type]  # one of KEPT


def _row_bytes(array: BatchArray) -> int:
    return int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize


EXAMPLE = "{'x': ('float32', (28, 28)), 'y': ('int32', ())}"
