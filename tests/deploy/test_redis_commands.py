"""Every redis-server that a page, a manifest or a message tells to start keeps what README.md promises."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent


def commands() -> dict[str, str]:
    """What starts a redis-server in the pages and the code, by where it stands."""
    folders = [ROOT / name for name in ("docs", "examples", "deploy", "crowdlearn", "services")]
    files = [ROOT / "README.md", *(file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file())]
    found = {}
    for file in files:
        name, text = file.relative_to(ROOT), file.read_text(errors="replace").replace("\\\n", " ")
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"\b(redis|valkey)-server\s+-", line):
                found[f"{name}:{number}"] = line
    return found


def test_every_command_names_an_append_only_file_and_its_policy() -> None:
    found = commands()
    assert {place.partition(":")[0] for place in found} == {"README.md", "docs/deploy.md"}
    for place, command in found.items():
        assert "--appendonly yes" in command, place
        assert re.search(r"--appendfsync (everysec|always)", command), place
        assert "allkeys" not in command, place


def test_compose_starts_a_redis_that_keeps_what_it_is_given() -> None:
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")
    assert options["--maxmemory-policy"] == "noeviction"


def test_kubernetes_starts_a_redis_that_keeps_what_it_is_given() -> None:
    lines = (ROOT / "deploy" / "kubernetes" / "redis.conf").read_text().splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(lines)
