"""Gives a process a slice of a processor of its own, by a control group of Linux: few cores show what many would.

Who is limited so has the time of its slice whatever the others do, as on a core of its own, only slower. A command,
with all that it starts, on a quarter of a core: `python -m benchmarks.cpu_slice 0.25 make test`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from crowdlearn.errors import SetupError

PERIOD_MICROSECONDS = 20_000
"""A fifth of the kernel's default: at a fifth of a core a process stands still for 16 ms at a time, not for 80."""

VERSION_1 = Path("/sys/fs/cgroup/cpu")
VERSION_2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cpu_slice(pid: int, share: float) -> Iterator[None]:
    """Holds a process to `share` of one processor for the length of a block. SetupError where that is not allowed."""
    quota = round(share * PERIOD_MICROSECONDS)
    try:
        group = _make_group(f"crowdlearn-{pid}", quota)
    except OSError as error:
        raise SetupError(f"no control group of processor time can be made here ({error}): run as root") from error
    try:
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # A group goes when nobody is in it any more.
        with contextlib.suppress(ProcessLookupError):
            (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _make_group(name: str, quota_microseconds: int) -> Path:
    if VERSION_1.is_dir():
        group = VERSION_1 / name
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
        (group / "cpu.cfs_quota_us").write_text(str(quota_microseconds))
        return group
    (VERSION_2 / "cgroup.subtree_control").write_text("+cpu")
    group = VERSION_2 / name
    group.mkdir()
    (group / "cpu.max").write_text(f"{quota_microseconds} {PERIOD_MICROSECONDS}")
    return group


def main(share: str, *command: str) -> int:
    """Runs a command on a share of one processor; returns its exit code."""
    with cpu_slice(os.getpid(), float(share)):
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
