"""A status is what msgspec would make of it, and costs its encoding once."""

from __future__ import annotations

import gzip
import random

import msgspec
import pytest

from crowdlearn.spec import CurvePoint, JobStatus
from services.gateway import bodies
from services.gateway.bodies import MAX_KEPT_BYTES, StatusBody


def status(points: int) -> JobStatus:
    """A status whose curve has lost its first ten points, as long ones do."""
    curve = [
        CurvePoint(10 + n, "train", n / 3, n, {"loss": 1 / (n + 1), "accuracy": 0.5}) for n in range(1, points + 1)
    ]
    return JobStatus(
        job="small", run="3f0c5a9d2b11", state="running", reason=None, created_seconds=1.5, parameters=2024, shards=2,
        bytes_per_push=1, rows=8, epochs=3, batch_rows=2, optimizer="sgd", until='"curve":[] >= 1', versions=[1, 2],
        updates_per_second=0.0, replicas=1, backlog=0, epoch=0.5, loss=0.1, metrics=None, curve=curve,
    )  # fmt: skip


@pytest.mark.parametrize("points", [0, 1, 2, 300])
@pytest.mark.parametrize("after", [0, 9, 10, 11, 12, 150, 309, 310, 10**15])
def test_a_viewer_gets_the_points_that_are_new(points: int, after: int) -> None:
    found = status(points)
    newer = [point for point in found.curve if point.index > after]
    wanted = msgspec.json.encode(msgspec.structs.replace(found, curve=newer))
    body = StatusBody(found).after(after)
    assert body.plain == wanted
    assert body.gzipped is None or gzip.decompress(body.gzipped) == wanted


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that was compressed."""
    sizes: list[int] = []
    compress = gzip.compress

    def counted(data: bytes, level: int) -> bytes:
        sizes.append(len(data))
        return compress(data, level)

    monkeypatch.setattr(bodies.gzip, "compress", counted)
    return sizes


def test_who_asks_for_the_same_shares_one_compression(compressed: list[int]) -> None:
    body = StatusBody(status(5000))
    assert len({body.after(0).gzipped for _ in range(100)}) == 1
    assert len(compressed) == 1


def test_who_asks_for_every_end_of_a_curve_has_little_compressed(compressed: list[int]) -> None:
    body, chance = StatusBody(status(5000)), random.Random(1)
    for _ in range(2000):
        _ = body.after(chance.randrange(5010)).gzipped
    assert 0 < sum(compressed) <= MAX_KEPT_BYTES
