"""When a fleet looks on for its gateway, and when it says that there is none."""

from __future__ import annotations

import asyncio
import logging

import pytest

from crowdlearn.errors import SetupError
from crowdlearn.replica import fleet
from crowdlearn.replica.fleet import Fleet
from crowdlearn.replica.gateway import Gateway, NoAnswerError, UnreachableError
from tests.patience import PATIENCE_SECONDS

NOBODY = NoAnswerError("http://nowhere/jobs does not answer: refused")
AWAY = UnreachableError("expected http://nowhere/jobs to answer 200, got 503")


class Answers(Gateway):
    """Fails as a test says, one after the other, and then has a job."""

    def __init__(self, *failures: UnreachableError) -> None:
        super().__init__("http://nowhere")
        object.__setattr__(self, "failures", list(failures))

    async def newest_job(self) -> str:
        failures: list[UnreachableError] = self.failures  # type: ignore[attr-defined]  # set above: it is frozen
        if failures:
            raise failures.pop(0)
        return "digits"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    monkeypatch.setattr(fleet.random, "random", lambda: 0.0)


async def find(*failures: UnreachableError) -> str:
    return await Fleet(Answers(*failures), None, 1)._find()


async def test_an_address_at_which_nobody_answers_is_given_up_with_what_to_check() -> None:
    with pytest.raises(
        SetupError, match=r"refused, 6 times: check the address and its port.*http://nowhere should show the page"
    ):
        await asyncio.wait_for(find(*[NOBODY] * 6), PATIENCE_SECONDS)


async def test_a_gateway_that_comes_a_little_later_is_found() -> None:
    assert await find(*[NOBODY] * 5) == "digits"


async def test_a_gateway_whose_redis_is_away_is_waited_for() -> None:
    assert await find(*[AWAY] * 50, *[NOBODY] * 5, AWAY, *[NOBODY] * 5) == "digits"


async def test_a_gateway_that_answered_once_is_waited_for_as_long_as_it_takes_to_restart() -> None:
    assert await find(*[NOBODY] * 5, AWAY, *[NOBODY] * 50) == "digits"


async def test_the_first_failure_is_said_at_once_and_once(caplog: pytest.LogCaptureFixture) -> None:
    await find(*[NOBODY] * 5)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["http://nowhere/jobs does not answer: refused; trying again"]
