"""Which gradients may enter, case by case, with frames of one shard of four values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from crowdlearn.codecs import F32, INT8
from crowdlearn.errors import FrameError
from crowdlearn.frames import Frame, Kind, unpack
from crowdlearn.protocol import Ack
from crowdlearn.sharding import Shard
from services.gateway.admission import ADMIT, ASK_REDIS, Conditions, Lane, admit, require_fit
from tests.gateway.gateway_harness import make_spec

SPEC = make_spec(shards=(Shard(0, 4), Shard(4, 4)), push_codec="f32")
GOOD = Frame(Kind.GRADIENT, 0, 1, 4, 7, 10, 0.5, 2, 1, np.ones(4, "<f4").tobytes())
CALM = Conditions(
    running=True, newest=10, remembered=True, may_train=True, asked=False, room=True, retry_seconds=0.25,
    accounted=True, leased=True,
)  # fmt: skip


def busy(sequence: int) -> Ack:
    return Ack(shard=1, sequence=sequence, status="busy", retry_seconds=0.25)


def rejected(reason: str) -> Ack:
    return Ack(shard=1, sequence=7, status="rejected", reason=reason)  # type: ignore[arg-type]


def test_a_good_gradient_is_admitted() -> None:
    assert require_fit(GOOD, SPEC) is F32
    assert admit(GOOD, F32, Lane(accepted=6), CALM) is ADMIT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": Kind.PARAMETERS}, r"a replica sends gradients \(kind 1\), got kind 2"),
        ({"minibatches": 2**32 - 1}, "a gradient sums at most 16 minibatches, got 4,294,967,295"),
        ({"codec": 2}, r"the job's push codec is 0 \(f32\), got 2"),
        ({"shard": 2}, "the job has shards 0 to 1, got shard 2"),
        ({"count": 5}, "shard 1 expects 4 values, got 5"),
        ({"payload": b"\0" * 15}, "f32 of 4 values is 16 bytes, got 15"),
        ({"sequence": 0}, "sequence and minibatches are at least 1, got 0 and 1"),
        ({"minibatches": 0}, "sequence and minibatches are at least 1, got 7 and 0"),
    ],
)
def test_a_frame_that_does_not_fit_says_what_was_expected(change: dict[str, object], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        require_fit(replace(GOOD, **change), SPEC)  # type: ignore[arg-type]


def test_a_sequence_number_enters_once() -> None:
    assert admit(GOOD, F32, Lane(accepted=7), CALM) == Ack(shard=1, sequence=7, status="duplicate")


def test_a_finished_job_takes_nothing() -> None:
    assert admit(GOOD, F32, Lane(0), replace(CALM, running=False)) == rejected("not-running")


def test_an_unknown_version_is_asked_for_before_it_is_refused() -> None:
    assert admit(GOOD, F32, Lane(0), replace(CALM, newest=9)) is ASK_REDIS
    assert admit(GOOD, F32, Lane(0), replace(CALM, newest=9, asked=True)) == rejected("future-version")


def test_a_forgotten_replica_is_asked_for_before_it_is_refused() -> None:
    assert admit(GOOD, F32, Lane(0), replace(CALM, remembered=False)) is ASK_REDIS
    assert admit(GOOD, F32, Lane(0), replace(CALM, remembered=False, asked=True)) == rejected("expired")


def test_without_room_a_gradient_comes_again() -> None:
    assert admit(GOOD, F32, Lane(0), replace(CALM, room=False)) == busy(7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_and_loss_are_finite(bad: float) -> None:
    values = np.array([1, 2, bad, 4], "<f4").tobytes()
    assert admit(replace(GOOD, payload=values), F32, Lane(0), CALM) == rejected("not-finite")
    assert admit(replace(GOOD, loss=bad), F32, Lane(0), CALM) == rejected("not-finite")


def test_an_int8_scale_is_finite() -> None:
    payload = np.array([math.inf], "<f4").tobytes() + b"\1\2\3\4"
    assert admit(replace(GOOD, codec=2, payload=payload), INT8, Lane(0), CALM) == rejected("not-finite")


def test_after_a_busy_the_refused_frame_comes_first() -> None:
    lane = Lane(accepted=5)
    lane.refuse(6)
    assert admit(GOOD, F32, lane, CALM) == busy(7)
    assert admit(replace(GOOD, sequence=6), F32, lane, CALM) is ADMIT


def test_every_refused_frame_keeps_its_place() -> None:
    # 6, 7 and 8 were refused. 6 is on its way again; 8 must not overtake 7, which would then be a repetition.
    lane = Lane(accepted=5)
    for sequence in (6, 7, 8):
        lane.refuse(sequence)
    lane.launch(6, 10)
    assert admit(replace(GOOD, sequence=8), F32, lane, CALM) == busy(8)
    assert admit(replace(GOOD, sequence=7), F32, lane, CALM) is ADMIT


def test_a_frame_that_is_on_its_way_is_not_sent_twice() -> None:
    lane = Lane(accepted=5)
    lane.launch(7, 10)
    assert admit(GOOD, F32, lane, CALM) == busy(7)


def test_a_frame_that_did_not_arrive_is_first_again() -> None:
    lane = Lane(accepted=5)
    lane.launch(6, 10)
    lane.launch(7, 10)
    lane.crash(6)
    lane.crash(7)
    assert lane.refused == [6, 7]
    assert admit(GOOD, F32, lane, CALM) == busy(7)
    lane.launch(6, 10)
    lane.land(6, 3)
    assert lane.accepted == 6
    assert admit(GOOD, F32, lane, CALM) is ADMIT


WIDE = json.loads((Path(__file__).parent.parent / "vectors" / "wide.json").read_text())


@pytest.mark.parametrize("row", [pytest.param(r, id=r["name"]) for r in WIDE if r["kind"] == "gradient"])
def test_gradients_that_f16_cannot_hold_are_taken_as_f32(row: dict[str, Any]) -> None:
    spec = make_spec(parameters=3, shards=(Shard(0, 3),), push_codec=row["codec"])
    frame = unpack(bytes.fromhex(row["hex"]))
    if row["values_hex"] is None:
        try:
            codec = require_fit(frame, spec)
        except FrameError:
            return
        expected = Ack(shard=0, sequence=1, status="rejected", reason="not-finite")
        assert admit(frame, codec, Lane(accepted=0), CALM) == expected
        return
    codec, values = require_fit(frame, spec), np.empty(3, np.float32)
    assert admit(frame, codec, Lane(accepted=0), CALM) is ADMIT
    codec.decode(frame.payload, values)
    assert values.tobytes().hex() == row["values_hex"]
