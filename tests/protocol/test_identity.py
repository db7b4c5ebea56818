"""A replica's id tells its birth."""

from __future__ import annotations

import pytest

from crowdlearn.identity import birth_seconds


def test_the_first_eight_digits_are_the_birth() -> None:
    assert birth_seconds("67414f80a1b2c3d4") == 1_732_333_440


@pytest.mark.parametrize("text", ["", "nobody", "6 414f80a1b2c3d4", "-7414f80a1b2c3d4", "a" * 1000])
def test_what_is_no_id_has_no_birth(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|expected an id of up to"):
        birth_seconds(text)
