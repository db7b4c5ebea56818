"""Python speaks the protocol exactly as tests/vectors/ records it; web_worker/test does the same for TypeScript."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn import codecs, frames, precision, protocol
from crowdlearn.errors import FrameError, MessageError, NotFiniteError
from crowdlearn.replica.gateway import DamagedError, verified
from crowdlearn.replica.local_step import local_step
from crowdlearn.replica.parameters import Parameters
from crowdlearn.sharding import Shard

VECTORS = Path(__file__).parent.parent / "vectors"
MAKE = runpy.run_path(str(VECTORS / "make.py"))


def rows(file: str, **where: str) -> list[Any]:
    """The rows of a vector file as pytest parameters, named after themselves."""
    content = json.loads((VECTORS / file).read_text())
    chosen = [row for row in content if all(row[key] == value for key, value in where.items())]
    return [pytest.param(row, id=row["name"]) for row in chosen]


def training(**changes: Any) -> protocol.ReplicaTraining:
    """What a replica is told, with `changes`."""
    return msgspec.structs.replace(protocol.ReplicaTraining(1, 1, 0.05, 8, 2, "int8", "f16", 0), **changes)


def test_the_committed_vectors_are_what_make_py_writes() -> None:
    assert {name: (VECTORS / name).read_text() for name in MAKE["build"]()} == MAKE["build"]()


@pytest.mark.parametrize("row", rows("messages.json"))
def test_a_message_survives_the_way_to_text_and_back(row: dict[str, Any]) -> None:
    decode = protocol.decode_from_replica if row["from"] == "replica" else protocol.decode_from_gateway
    message = decode(row["text"])
    assert json.loads(msgspec.json.encode(message)) == row["message"]
    assert protocol.encode(message) == row["text"]


@pytest.mark.parametrize("row", rows("malformed.json", of="text"))
def test_malformed_text_is_refused(row: dict[str, Any]) -> None:
    if row["name"] == "fetch of too few shards":
        assert protocol.decode_from_replica(row["text"]) == protocol.Fetch(have=[0])  # only a session can know
        return
    with pytest.raises(MessageError, match=r"docs/protocol\.md"):
        protocol.decode_from_replica(row["text"])


@pytest.mark.parametrize("row", rows("chunks.json"))
def test_a_chunk_is_taken_if_it_is_what_its_name_says(row: dict[str, Any]) -> None:
    body, grant = bytes.fromhex(row["hex"]), protocol.Grant(0, 0, 7, 1, 60.0, row["sha256"])
    if row["is_whole"]:
        assert verified(body, grant, "http://here") == body
        return
    with pytest.raises(DamagedError, match=f"chunk 7 of http://here expects the SHA-256 {row['sha256']}, got "):
        verified(body, grant, "http://here")


@pytest.mark.parametrize("row", rows("frames.json"))
def test_a_frame_survives_the_way_to_bytes_and_back(row: dict[str, Any]) -> None:
    frame = frames.unpack(bytes.fromhex(row["hex"]))
    assert MAKE["_frame_fields"](frame) == row["frame"]
    assert frames.pack(frame).hex() == row["hex"]


@pytest.mark.parametrize("row", rows("malformed.json", of="frame"))
def test_a_malformed_frame_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        frames.unpack(bytes.fromhex(row["hex"]))


@pytest.mark.parametrize("row", rows("items.json"))
def test_an_item_survives_the_way_to_bytes_and_back(row: dict[str, Any]) -> None:
    data, payload = bytes.fromhex(row["hex"]), bytes.fromhex(row["payload_hex"])
    assert frames.is_item(data)
    assert frames.unpack_item(data) == (row["number"], payload)
    assert frames.pack_item(row["number"], payload) == data


@pytest.mark.parametrize("row", rows("malformed.json", of="item"))
def test_a_malformed_item_is_refused(row: dict[str, Any]) -> None:
    assert frames.is_item(bytes.fromhex(row["hex"]))
    with pytest.raises(FrameError):
        frames.unpack_item(bytes.fromhex(row["hex"]))


@pytest.mark.parametrize("row", rows("codecs.json"))
def test_a_codec_writes_and_reads_the_recorded_bytes(row: dict[str, Any]) -> None:
    codec = codecs.BY_NAME[row["codec"]]
    values, uniforms, decoded = (
        np.frombuffer(bytes.fromhex(row[key]), "<f4") for key in ("values_hex", "uniforms_hex", "decoded_hex")
    )
    payload = codec.encode(values, MAKE["FixedUniforms"](uniforms))
    assert payload.hex() == row["payload_hex"]
    codec.check(payload, values.size)
    out = np.empty_like(values)
    codec.decode(payload, out)
    assert out.tobytes() == decoded.tobytes()


@pytest.mark.parametrize("row", rows("refused.json"))
def test_a_codec_refuses_what_it_must_not_take(row: dict[str, Any]) -> None:
    expected = FrameError if row["error"] == "length" else NotFiniteError
    with pytest.raises(expected):
        codecs.BY_NAME[row["codec"]].check(bytes.fromhex(row["payload_hex"]), row["count"])


@pytest.mark.parametrize("row", rows("precision.json"))
def test_what_a_codec_cannot_hold_is_known(row: dict[str, Any]) -> None:
    values = np.frombuffer(bytes.fromhex(row["values_hex"]), "<f4")
    arrays = [slice(start, end) for start, end in row["arrays"]]
    codec: protocol.CodecName
    for codec in ("f32", "f16", "int8"):
        assert precision.holds(codec, values, arrays) == row["holds"][codec]


@pytest.mark.parametrize("row", rows("wide.json", kind="parameters"))
def test_parameters_that_the_jobs_codec_cannot_hold_are_taken_as_f32(row: dict[str, Any]) -> None:
    parameters, frame = (
        Parameters([Shard(0, 3)], training(fetch_codec=row["codec"])),
        frames.unpack(bytes.fromhex(row["hex"])),
    )
    if row["values_hex"] is None:
        with pytest.raises((FrameError, NotFiniteError)):
            parameters.offer(frame)
        return
    parameters.offer(frame)
    parameters.adopt()
    assert parameters.values.tobytes().hex() == row["values_hex"]


@pytest.mark.parametrize("row", rows("local-steps.json"))
def test_a_local_step_is_bounded_as_recorded(row: dict[str, Any]) -> None:
    gradient, values = (np.frombuffer(bytes.fromhex(row[key]), "<f4") for key in ("gradient_hex", "values_hex"))
    stepped = values - local_step(gradient, training(**row["training"]), row["reach"])
    assert stepped.tobytes().hex() == row["stepped_hex"]
