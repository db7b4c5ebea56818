"""docker-compose.yml from a clean state: browsers train through the balancer while containers are killed and scaled.

`make test-compose` runs it, with Docker or with what CROWDLEARN_COMPOSE names; it builds images, which takes minutes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect, sync_playwright

from benchmarks.processes import free_port
from services.cli.browsers import FLAGS, find_chromium

ROOT = Path(__file__).parent.parent.parent
COMPOSE = shlex.split(os.environ.get("CROWDLEARN_COMPOSE", "docker compose"))
ENGINE = "docker" if COMPOSE[0] == "docker" else "podman"
PROJECT = "crowdlearn-test"
SCRATCH = ROOT / "build" / "compose-test"
DEADLINE_SECONDS = 300.0
PATIENCE_SECONDS = 15.0
TARGET = 0.95
JOB = "endless-digits"


class Installation:
    """The containers of one `docker compose up`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "CROWDLEARN_PORT": str(self.port), "COMPOSE_PROJECT_NAME": PROJECT}

    def compose(self, *arguments: str) -> str:
        return self._run([*COMPOSE, *arguments])

    def operator(self, *arguments: str) -> str:
        """README's shell function of that name, from the folder with docker-compose.yml."""
        line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("operator()"))
        docker = f'docker() {{ shift; {shlex.join(COMPOSE)} "$@"; }}'
        return self._run(["bash", "-euc", f'{docker}; {line}; operator "$@"', "operator", *arguments])

    def containers(self, service: str) -> list[str]:
        """The running containers of a service, by number."""
        label = f"label=com.docker.compose.project={PROJECT}"
        mine = f"label=com.docker.compose.service={service}"
        names = self._run([ENGINE, "ps", "--filter", label, "--filter", mine, "--format", "{{.Names}}"]).split()
        return sorted(names)

    def kill(self, *containers: str) -> None:
        self._run([ENGINE, "kill", "--signal", "KILL", *containers])

    def started(self, service: str) -> list[str]:
        """When each of its containers, by number, was started."""
        format_ = ("--format", "{{.Id}} {{.State.StartedAt}}")
        return self._run([ENGINE, "inspect", *format_, *self.containers(service)]).splitlines()

    def checkpoints(self) -> list[str]:
        """The files in the checkpointer's volume."""
        (container,) = self.containers("checkpointer")
        return self._run([ENGINE, "exec", container, "find", "/checkpoints", "-type", "f"]).splitlines()

    def up(self, *options: str, **counts: int) -> None:
        """As an operator does: `up -d --scale gateway=3 --scale aggregator=2`."""
        scales = [["--scale", f"{service}={count}"] for service, count in counts.items()]
        if ENGINE == "docker":
            self.compose("up", "-d", *options, *chain.from_iterable(scales))
            return
        # podman-compose heeds one --scale at a time, starts what is missing, and leaves what is too much.
        for number, scale in enumerate(scales):
            self.compose("up", "-d", *(options if number == 0 else ["--no-build"]), *scale)
        for service, count in counts.items():
            for surplus in self.containers(service)[count:]:
                self._run([ENGINE, "stop", surplus])

    def scale(self, **counts: int) -> None:
        """Scales up or down."""
        self.up("--no-build", **counts)
        assert {service: len(self.containers(service)) for service in counts} == counts

    def remove(self) -> None:
        self.compose("--profile", "example", "--profile", "checkpoints", "down", "-v")
        label = f"label=com.docker.compose.project={PROJECT}"
        # podman removes a container only after those that depend on it, and podman-compose forgets what it scaled up.
        for _ in range(5):
            left = self._run([ENGINE, "ps", "-aq", "--filter", label]).split()
            if not left:
                return
            subprocess.run([ENGINE, "rm", "-f", *left], check=False, capture_output=True)
        raise AssertionError(f"containers stay: {left}")

    def status(self) -> dict[str, Any]:
        """What a gateway, any of them, says of the job through the balancer."""
        # While one dies, the balancer may answer 502 or 503.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/jobs/{JOB}", timeout=PATIENCE_SECONDS) as answer:
                    return dict(json.load(answer))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def version(self) -> int:
        return int(max(self.status()["versions"]))

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout


def eventually(holds: Callable[[], bool]) -> None:
    """Returns when `holds` does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise AssertionError(f"did not happen within {DEADLINE_SECONDS:g} s")


@pytest.fixture
def installation() -> Iterator[Installation]:
    """From a clean state, to a clean state."""
    made = Installation()
    made.remove()
    try:
        made.up("--build", gateway=3, aggregator=2)
        yield made
        logs = made.compose("logs")
        assert "Traceback" not in logs, logs[-6000:]
    finally:
        made.remove()
        shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture
def volunteers() -> Iterator[list[BrowserContext]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        yield [browser.new_context() for _ in range(2)]
        browser.close()


def endless_digits() -> str:
    """The digits, with a target out of reach: they train until the operator says otherwise, on fast machines too."""
    text = (ROOT / "examples" / "digits.py").read_text().replace('name="digits"', f'name="{JOB}"')
    text = text.replace("epochs=30", "epochs=1_000_000").replace("accuracy >= 0.95", "accuracy >= 2")
    text = text.replace("learning_rate=0.05", "learning_rate=0.0015")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    (SCRATCH / "endless_digits.py").write_text(text)
    return f"{SCRATCH.relative_to(ROOT)}/endless_digits.py"


def test_browsers_reach_the_target_while_containers_die_and_scale(
    installation: Installation, volunteers: list[BrowserContext]
) -> None:
    eventually(lambda: urllib.request.urlopen(f"{installation.url}/readyz", timeout=5).status == 200)
    balancer = installation.started("balancer")
    # The profile submits the example, as the head of docker-compose.yml says.
    installation.compose("--profile", "example", "run", "--rm", "submit")
    assert "digits" in installation.operator("status")
    installation.operator("stop", "digits")
    installation.operator("submit", endless_digits())
    installation.compose("--profile", "checkpoints", "up", "-d", "--build", "checkpointer")

    pages = [context.new_page() for context in volunteers]
    for page in pages:
        page.goto(f"{installation.url}/?job={JOB}&join")

    def goes_on() -> None:
        before = installation.version()
        eventually(lambda: installation.version() > before + 50)

    assert (len(installation.containers("gateway")), len(installation.containers("aggregator"))) == (3, 2)
    goes_on()
    for service in ("gateway", "aggregator"):
        installation.kill(installation.containers(service)[0])
        goes_on()
    installation.scale(gateway=1, aggregator=1)
    goes_on()
    # The balancer finds the new ones by itself: when the old one dies, only they are left.
    old = installation.containers("gateway")
    installation.scale(gateway=8, aggregator=2)
    installation.kill(*old)
    goes_on()
    installation.scale(gateway=2)
    goes_on()
    assert installation.started("balancer") == balancer
    eventually(lambda: bool(installation.checkpoints()))

    installation.operator("stop", JOB)
    installation.operator("resume", JOB, "--until", f"accuracy >= {TARGET}")
    eventually(lambda: installation.status()["state"] == "finished")
    status = installation.status()
    assert (status["reason"], status["metrics"]["accuracy"] >= TARGET) == ("until", True)
    for page in pages:
        expect(page.locator("#state")).to_have_attribute("data-state", "finished", timeout=30_000)
    weights = SCRATCH / "weights.safetensors"
    installation.operator("export", JOB, str(weights.relative_to(ROOT)))
    assert weights.stat().st_size > 4 * status["parameters"]
