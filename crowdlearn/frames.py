"""Packs and unpacks the binary frames of docs/protocol.md. Knows no codec's arithmetic and no socket."""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from crowdlearn.errors import FrameError

HEADER = struct.Struct("<BBHIQQfIII")
HEADER_BYTES = HEADER.size
ITEM_HEADER = struct.Struct("<B7xQ")
ITEM_HEADER_BYTES = ITEM_HEADER.size
MAX_INTEGER = 2**53 - 1
"""Integers above are malformed: a JavaScript number could not hold them."""


class Kind(IntEnum):
    """What a frame carries."""

    GRADIENT = 1
    PARAMETERS = 2
    ITEM = 3
    """Raw bytes of an interaction, behind a header of its own."""


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


def is_item(data: bytes) -> bool:
    """Whether a frame is of an item: then `unpack_item` reads it."""
    return data[:1] == bytes((Kind.ITEM,))


def pack_item(number: int, payload: bytes) -> bytes:
    """Returns the frame of a replica's item `number`: 16 bytes of header, then the payload."""
    return ITEM_HEADER.pack(Kind.ITEM, number) + payload


def unpack_item(data: bytes) -> tuple[int, bytes]:
    """An item's number and its payload.

    Raises:
        FrameError: short header, reserved bits, or a number that is none.
    """
    if len(data) < ITEM_HEADER_BYTES:
        raise FrameError(f"an item has {ITEM_HEADER_BYTES} bytes of header, got {len(data)} bytes")
    _, number = ITEM_HEADER.unpack_from(data)
    if any(data[1:8]):
        raise FrameError(f"the reserved bytes of an item are 0, got {data[1:8].hex()}")
    if not 1 <= number <= MAX_INTEGER:
        raise FrameError(f"an item's number is between 1 and 2^53 - 1, got {number}")
    return number, data[ITEM_HEADER_BYTES:]
