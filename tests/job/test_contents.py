"""The names of chunks: which they are, and where the chunk of a name is."""

from __future__ import annotations

from hashlib import sha256

import pytest

from crowdlearn.contents import Contents, name_of
from crowdlearn.errors import JobError


def contents_of(*chunks: bytes) -> Contents:
    return Contents(b"".join(sha256(chunk).digest() for chunk in chunks))


def test_a_chunk_is_named_by_its_bytes() -> None:
    # FIPS 180-2, appendix B.1.
    assert name_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    contents = contents_of(b"", b"abc")
    assert (len(contents), contents.name(1)) == (2, name_of(b"abc"))


def test_every_name_leads_to_its_chunk() -> None:
    chunks = [str(index).encode() for index in range(1000)]
    contents = contents_of(*chunks)
    assert [contents.index(name_of(chunk)) for chunk in chunks] == list(range(1000))
    assert contents.index(name_of(b"another")) is None
    assert Contents(b"").index(name_of(b"another")) is None


def test_names_that_begin_alike_are_told_apart() -> None:
    first, second, third = b"\xff" * 31 + b"\x01", b"\xff" * 31 + b"\x02", b"\xff" * 31 + b"\x03"
    contents = Contents(second + first)
    assert [contents.index(name.hex()) for name in (first, second, third)] == [1, 0, None]


def test_equal_chunks_have_one_name() -> None:
    assert contents_of(b"other", b"same", b"same").index(name_of(b"same")) == 1


def test_half_a_name_is_refused() -> None:
    with pytest.raises(JobError, match="expect a multiple of 32 bytes, got 33"):
        Contents(bytes(33))
