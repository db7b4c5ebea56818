"""docs/operations.md against the metrics and settings that there are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from crowdlearn import metrics
from crowdlearn.settings import AggregatorSettings, EvaluatorSettings, GatewaySettings, PreprocessorSettings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
FAMILIES = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
NAMES = {
    f"{described.name}{'_total' if described.type == 'counter' else ''}"
    for family in FAMILIES
    for described in family.describe()
}


def test_every_metric_is_explained() -> None:
    explained = set(re.findall(r"^\| `(crowdlearn_\w+)", PAGE, re.MULTILINE))
    assert len(NAMES) == len(FAMILIES) > 10
    assert explained == NAMES


def test_no_other_metric_is_spoken_of() -> None:
    assert {name.removesuffix("_bucket") for name in re.findall(r"\bcrowdlearn_[a-z_]+", PAGE)} == NAMES


def test_a_label_that_is_spoken_of_is_one_of_its_metric() -> None:
    labels = {name: family._labelnames for family in FAMILIES for name in NAMES if name.startswith(family._name)}
    for name, braces in re.findall(r"(crowdlearn_\w+)\{([^}]*)\}", PAGE):
        assert {part.partition("=")[0] for part in braces.split(",")} <= set(labels[name])


def test_the_rules_are_rules() -> None:
    rules = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    assert all(set(rule) == {"alert", "expr"} for rule in rules)
    assert all(rule["expr"].count("(") == rule["expr"].count(")") for rule in rules)


def test_a_setting_that_is_spoken_of_is_one() -> None:
    services = (GatewaySettings, AggregatorSettings, PreprocessorSettings, EvaluatorSettings)
    known = {f"CROWDLEARN_{field.name.upper()}" for cls in services for field in fields(cls)}
    assert set(re.findall(r"CROWDLEARN_[A-Z_]+", PAGE)) <= known | {
        "CROWDLEARN_METRICS_PORT",
        "CROWDLEARN_METRICS_HOST",
    }


def test_the_plan_follows_from_its_formulas() -> None:
    rows = {row[0]: row[1:] for row in re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", PAGE, re.MULTILINE)}
    parameters = 79_510
    for column, (replicas, seconds) in enumerate(((21_000, 10), (1_000_000, 60))):
        updates = replicas / seconds
        assert number(rows["updates a second"][column]) == near(updates)
        assert number(rows["up: into gateways"][column]) == near(updates * (parameters + 352))
        assert number(rows["down: out of gateways"][column]) == near(updates * 2 * parameters)
        assert number(rows["gateways at 3,000 sockets"][column]) == near(replicas / 3000)
        assert number(rows["traffic down in a day"][column]) == near(updates * 2 * parameters * 86_400)
        assert number(rows["commits into Redis"][column]) == near(50 * 2 * 4 * parameters)
        assert number(rows["their processors for pushes and fetches (0.8 ms)"][column]) == near(updates * 0.8e-3)
        assert number(rows["aggregators (0.9 ms, 70 % full)"][column]) == near(updates * 0.9e-3 / 0.7)
        assert number(rows["Redis (0.24 ms, 50 % full)"][column]) == near(updates * 0.24e-3 / 0.5)
        gateways, version_bytes = number(rows["gateways at 3,000 sockets"][column]), 4 * parameters
        often, seldom = (row for name, row in rows.items() if "every 0." in name)
        assert number(often[column]) == near(gateways / GatewaySettings().fetch_interval_seconds * version_bytes)
        assert number(seldom[column]) == near(gateways / 0.5 * version_bytes)


def number(text: str) -> float:
    """The first number of a cell, in bytes or pieces."""
    value, unit = re.match(r"([\d.,]+) ?(MB|GB|TB)?", text).groups()  # type: ignore[union-attr]
    return float(value.replace(",", "")) * {"MB": 1e6, "GB": 1e9, "TB": 1e12}.get(unit, 1)


def near(value: float) -> object:
    """As far as the page rounds."""
    return pytest.approx(value, rel=0.1)
