"""Ctrl-C ends `submit`, `up` and `check` wherever it comes, with the exit status of every interrupted program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import RedisServer
from tests.end_to_end.commands import ROOT, said

JOB = """
import enum, gc, hashlib, os, signal, sys, threading
import numpy as np
from crowdlearn import Data, Job


def in_a_callback():
    def interrupted(phase, info):
        gc.callbacks.remove(interrupted)
        signal.raise_signal(signal.SIGINT)
    gc.callbacks.append(interrupted)
    gc.collect()


def in_a_finalizer():
    class Held:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
    Held()


def in_the_start_of_a_compiled_module():
    create = enum.EnumType._create_
    def interrupted(*arguments, **named):
        # jaxlib's begins so. An exception that comes out of it ends the process.
        if sys._getframe(2).f_code.co_name == "_call_with_frames_removed":
            enum.EnumType._create_ = create
            signal.raise_signal(signal.SIGINT)
        return create(*arguments, **named)
    enum.EnumType._create_ = interrupted


def in_executed_text():
    exec("signal.raise_signal(signal.SIGINT)")


def in_code_that_catches_everything():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        pass
    while True:
        pass


def in_compiled_code():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha1", b"", b"", 2**31 - 1)


def loss(p, b):
    TRACED
    return ((b["x"] @ p["w"]) ** 2).mean()


x = np.ones((64, 4), np.float32)
LOADED
job = Job(name="interrupted", params={"w": np.ones(4)}, loss=loss, data=Data(train={"x": x}), batch_size=8)
"""


def interrupted(folder: Path, *, loaded: str = "", traced: str = "pass") -> str:
    """A job file that is interrupted while it is loaded, or while its loss is traced."""
    file = folder / "interrupted.py"
    file.write_text(JOB.replace("TRACED", traced).replace("LOADED", loaded))
    return str(file)


HEARING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from services.cli import main
sys.argv[0] = "crowdlearn"
main()
"""
"""The command, also where the tests run in the background of a shell: what starts there ignores Ctrl-C."""


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """How the command ended."""
    command = [sys.executable, "-c", HEARING, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


WHERE = [
    "in_a_callback()",
    "in_a_finalizer()",
    "in_executed_text()",
    "in_code_that_catches_everything()",
    "in_compiled_code()",
]


@pytest.mark.redis
@pytest.mark.parametrize("where", WHERE)
def test_ctrl_c_ends_a_submission_that_traces(redis_server: RedisServer, tmp_path: Path, where: str) -> None:
    done = ended("submit", interrupted(tmp_path, traced=where), "--no-check", "--redis", redis_server.url)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "no job is named 'interrupted'" in said("status", "interrupted", "--redis", redis_server.url).stderr


@pytest.mark.parametrize("where", [*WHERE[:3], "in_the_start_of_a_compiled_module()"])
def test_ctrl_c_ends_up_before_it_has_begun(tmp_path: Path, where: str) -> None:
    done = ended("up", interrupted(tmp_path, loaded=where), "--no-check", "--port", "0", "--replicas", "1", "--exit")
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_check(tmp_path: Path) -> None:
    done = ended("check", interrupted(tmp_path, traced="in_a_callback()"), "--no-browser")
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
