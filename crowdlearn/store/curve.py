"""The curves of a run: of training, of held-out rows, and of fresh rows of its stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from crowdlearn.spec import CurveKind, CurvePoint
from crowdlearn.store import keys, scripts
from crowdlearn.store.connection import Connection

MAX_POINTS = 5000
"""At four points a second the last twenty minutes and more; a page draws fewer."""


class _Point(msgspec.Struct, frozen=True):
    kind: CurveKind
    seconds: float
    version: int
    values: dict[str, float]


_decode = msgspec.json.Decoder(_Point).decode


class Curve:
    """The curves of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def record(self, run: str, kind: CurveKind, seconds: float, version: int, values: Mapping[str, float]) -> int:
        """Appends a point, `seconds` after the job was created; returns its index, from 1; 0 if the run is gone."""
        point = msgspec.json.encode(_Point(kind, seconds, version, dict(values)))
        names = (keys.curve(run), keys.state(run))
        index: int = await self._connection.run(scripts.RECORD_POINT, names, MAX_POINTS, point)
        return index

    async def points(self, run: str, after: int = 0) -> list[CurvePoint]:
        """The points whose index exceeds `after`, in order."""
        return _points(await self._connection.call("XRANGE", keys.curve(run), f"{after + 1}-0", "+"))

    async def first(self, run: str) -> CurvePoint | None:
        """The oldest point that is kept."""
        return next(iter(_points(await self._connection.call("XRANGE", keys.curve(run), "-", "+", "COUNT", 1))), None)

    async def newest(self, run: str, count: int) -> list[CurvePoint]:
        """The last `count` points, in order."""
        raw = await self._connection.call("XREVRANGE", keys.curve(run), "+", "-", "COUNT", count)
        return _points(raw[::-1])


def _points(raw: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[CurvePoint]:
    return [point for entry_id, fields in raw if (point := _point(entry_id, fields.get(b"p", b""))) is not None]


def _point(entry_id: bytes, data: Any) -> CurvePoint | None:
    try:
        point = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # appended by hand: no service writes such
    return CurvePoint(int(entry_id.partition(b"-")[0]), point.kind, point.seconds, point.version, point.values)
