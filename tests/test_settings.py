"""Settings from the environment: read once, with an error that names the variable."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from crowdlearn.errors import SetupError
from crowdlearn.settings import AggregatorSettings, EvaluatorSettings, GatewaySettings, from_environment


def test_a_given_value_wins_over_the_environment_which_wins_over_the_default() -> None:
    environ = {"CROWDLEARN_PORT": "9000", "CROWDLEARN_CREDIT": "3"}
    settings = from_environment(GatewaySettings, environ, port=9001, host=None)
    assert (settings.port, settings.credit, settings.host) == (9001, 3, "127.0.0.1")


def test_every_kind_of_value_is_read() -> None:
    environ = {"CROWDLEARN_LEASE_SECONDS": "0.5", "CROWDLEARN_READ_COUNT": "7"}
    settings = from_environment(AggregatorSettings, environ)
    assert (settings.lease_seconds, settings.read_count) == (0.5, 7)
    assert not from_environment(GatewaySettings, {"CROWDLEARN_CROSS_ORIGIN_ISOLATION": "0"}).cross_origin_isolation


@pytest.mark.parametrize(
    ("text", "origins"),
    [("", ()), (" ", ()), ("https://a", ("https://a",)), ("https://a, https://b", ("https://a", "https://b"))],
)
def test_a_list_is_written_with_commas_and_may_be_empty(text: str, origins: tuple[str, ...]) -> None:
    settings = from_environment(GatewaySettings, {"CROWDLEARN_ALLOWED_ORIGINS": text})
    assert settings.allowed_origins == origins


def test_a_wrong_value_is_refused_by_its_variable() -> None:
    with pytest.raises(SetupError, match="CROWDLEARN_PORT: Expected `int`"):
        from_environment(GatewaySettings, {"CROWDLEARN_PORT": "eighty"})


@pytest.mark.parametrize("text", ["0", "17", "nan"])
def test_a_share_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(SetupError, match="CROWDLEARN_MOST_SHARE"):
        from_environment(GatewaySettings, {"CROWDLEARN_MOST_SHARE": text})


def test_the_page_tells_defaults_as_the_environment_takes_them() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    sections = {"Gateway": GatewaySettings, "Aggregator": AggregatorSettings, "Evaluator": EvaluatorSettings}
    for name, settings in sections.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `(CROWDLEARN_\w+)` \| [^|]+ \| (?:`([^`]+)`|none)", section, re.MULTILINE)
        assert len(rows) == len(fields(settings))
        assert from_environment(settings, dict(rows)) == settings()
