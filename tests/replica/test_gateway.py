"""The addresses that a replica in Python asks."""

from __future__ import annotations

import pytest

from crowdlearn.errors import SetupError
from crowdlearn.replica.gateway import Gateway, RefusedError, parse_address


@pytest.mark.parametrize(
    ("given", "base", "job"),
    [
        ("localhost:8000", "http://localhost:8000", None),
        ("https://train.example/?job=digits&join", "https://train.example", "digits"),
        ("http://host/under/a/path/", "http://host/under/a/path", None),
    ],
)
def test_the_link_that_browsers_get_is_an_address(given: str, base: str, job: str | None) -> None:
    assert parse_address(given) == (base, job)


@pytest.mark.parametrize("given", ["ftp://host", "http://", "file:///etc/passwd"])
def test_another_address_is_refused(given: str) -> None:
    with pytest.raises(SetupError, match="expected a gateway's address such as http://HOST:8000"):
        parse_address(given)


async def test_a_program_is_fetched_from_no_other_host() -> None:
    with pytest.raises(RefusedError, match=r"by a path of http://localhost:1, got '@elsewhere/program'"):
        await Gateway("http://localhost:1").program("@elsewhere/program")
