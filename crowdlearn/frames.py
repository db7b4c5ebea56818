"""Packs and unpacks the binary frames of docs/protocol.md. Knows no codec's arithmetic and no socket."""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from crowdlearn.errors import FrameError

HEADER = struct.Struct("<BBHIQQfIII")
HEADER_BYTES = HEADER.size
MAX_INTEGER = 2**53 - 1
"""Integers above are malformed: a JavaScript number could not hold them."""


class Kind(IntEnum):
    """What a frame carries."""

    GRADIENT = 1
    PARAMETERS = 2


class Frame(msgspec.Struct, frozen=True):
    """One frame: the header's fields and the still encoded payload.

    What is made for every gradient is a struct: that takes a tenth of the time of a frozen dataclass.

    `version` is the base version of a gradient, or the version of the parameters. `loss` is the mean loss of the
    `minibatches` whose gradients are summed in it, `rows` the training rows they had.
    """

    kind: Kind
    codec: int
    shard: int
    count: int
    sequence: int
    version: int
    loss: float
    rows: int
    minibatches: int
    payload: bytes | memoryview


def pack(frame: Frame) -> bytes:
    """Returns the frame's bytes: 40 of header, then the payload."""
    header = HEADER.pack(
        frame.kind, frame.codec, frame.shard, frame.count, frame.sequence, frame.version,
        frame.loss, frame.rows, frame.minibatches, 0,
    )  # fmt: skip
    return header + frame.payload


def unpack(data: bytes) -> Frame:
    """Reads one frame; the payload is a view into `data`, not a copy.

    Raises:
        FrameError: short header, unknown kind, reserved bits, or an integer that JavaScript cannot hold.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"a frame has at least {HEADER_BYTES} bytes of header, got {len(data)} bytes")
    kind, codec, shard, count, sequence, version, loss, rows, minibatches, reserved = HEADER.unpack_from(data)
    if kind not in (Kind.GRADIENT, Kind.PARAMETERS):
        raise FrameError(f"a frame's kind is 1 (gradient) or 2 (parameters), got {kind}")
    if reserved:
        raise FrameError(f"the reserved field is 0, got {reserved}")
    if sequence > MAX_INTEGER or version > MAX_INTEGER:
        raise FrameError(f"sequence and version are at most 2^53 - 1, got {sequence} and {version}")
    payload = memoryview(data)[HEADER_BYTES:]
    return Frame(Kind(kind), codec, shard, count, sequence, version, loss, rows, minibatches, payload)
