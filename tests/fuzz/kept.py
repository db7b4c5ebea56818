"""The random losses that failed once, by what was wrong with them; `make test` replays them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.fuzz.loss import RandomLoss

KEPT: dict[str, RandomLoss] = msgspec.json.decode(
    (Path(__file__).parent / "kept.json").read_bytes(), type=dict[str, RandomLoss]
)
