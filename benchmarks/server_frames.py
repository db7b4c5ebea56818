"""Reads what a gateway sends, without keeping parameters: of binary messages only their header. Knows no socket.

The websockets library would join, copy and hold 159 KB for each of thousands of sockets; then it would be measured.
"""

from __future__ import annotations

import struct

from crowdlearn.frames import HEADER_BYTES

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9

_EXTENDED = {126: 2, 127: 8}


class ServerFrames:
    """The websocket frames of one server, which neither masks nor fragments."""

    __slots__ = ("_head", "_kept", "_left", "_opcode", "_wanted")

    def __init__(self) -> None:
        self._head, self._kept = b"", b""
        self._opcode = self._left = self._wanted = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The opcodes and (first) bytes of the messages that `data` completes."""
        messages, at = [], 0
        while at < len(data):
            if not self._left:
                at = self._begin(data, at)
            part = min(self._left, len(data) - at)
            missing = self._wanted - len(self._kept)
            if missing > 0:
                self._kept += data[at : at + min(part, missing)]
            self._left -= part
            at += part
            if not self._left and not self._head:
                messages.append((self._opcode, self._kept))
        return messages

    def _begin(self, data: bytes, at: int) -> int:
        """Reads a header from `data`, or what there is of it; returns where its payload begins."""
        head = self._head + data[at : at + 10 - len(self._head)]
        size = 2 + _EXTENDED.get(head[1] & 0x7F, 0) if len(head) > 1 else 2
        if len(head) < size:
            self._head = head
            return len(data)
        at += size - len(self._head)
        self._head, self._kept, self._opcode = b"", b"", head[0] & 0x0F
        self._left = head[1] & 0x7F if size == 2 else int.from_bytes(head[2:size], "big")
        self._wanted = min(self._left, HEADER_BYTES) if self._opcode == BINARY else self._left
        return at


def masked(opcode: int, size: int) -> bytes:
    """The header of a client's frame with the masking key 0, which RFC 6455 allows and which spares masking."""
    if size < 126:
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0)
    if size < 1 << 16:
        return struct.pack("!BBHI", 0x80 | opcode, 0xFE, size, 0)
    return struct.pack("!BBQI", 0x80 | opcode, 0xFF, size, 0)
