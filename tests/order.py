"""The order of the tests: as they stand, or files and the tests in each shuffled by a seed."""

from __future__ import annotations

import random
from itertools import groupby

import pytest


def shuffled(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Files in another order, and the tests in each; a file stays together, for what its tests share is dear."""
    chance = random.Random(seed)
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    for tests in files:
        chance.shuffle(tests)
    chance.shuffle(files)
    return [item for tests in files for item in tests]
