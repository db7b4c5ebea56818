"""The `crowdlearn` command as tests run it, and examples that train until the test is done with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "services.cli"]
PATIENT = "; ".join(
    [
        "import sys",
        "from services.cli import first_check, main",
        f"first_check.FIRST_STEP_SECONDS = {PATIENCE_SECONDS}",
        "sys.argv[0] = 'crowdlearn'",
        "main()",
    ]
)
"""The command, whose check of a first gradient has as long as a slow machine takes."""

ENDLESS = 100_000
"""Epochs that outlast every test: how many a browser trains before another has joined depends on the machine."""


def said(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """How the command ended, and what it printed.

    `up` and `submit` try no first gradient unless asked to with --check: that takes seconds each time.
    """
    command = COMMAND
    if "--check" in arguments:
        command = [sys.executable, "-c", PATIENT]
    elif arguments[0] in ("up", "submit"):
        arguments = (*arguments, "--no-check")
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=2 * PATIENCE_SECONDS,
    )


def crowdlearn(*arguments: str, **environment: str) -> dict[str, Any]:
    """Runs the command with --json and returns what it printed; fails unless it ends well."""
    done = said(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def variant(folder: Path, example: str, name: str, **changes: object) -> str:
    """A job file with the job of examples/`example`.py under another name, endless unless `changes` say otherwise."""
    file = folder / f"{name}.py"
    changed = {"name": name, "epochs": ENDLESS, **changes}
    fields = ", ".join(f"{field}={value!r}" for field, value in changed.items())
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        f"from dataclasses import replace\nfrom {example} import job\njob = replace(job, {fields})\n"
    )
    return str(file)
