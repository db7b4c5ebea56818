"""Runs web_worker/node, the bundle that executes modules, in a Node process, and talks with it. Knows no job.

Messages, one answer a request: u32 length of a JSON header, u32 length of a body, header, body. web_worker/node/pipe.ts
is the other end.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import IO, Any

import msgspec

from crowdlearn.errors import JobError, SetupError

CHECKOUT = Path(__file__).parents[2] / "web_worker" / "dist" / "node" / "module.mjs"
INSTALLED = Path(__file__).parent / "bundle" / "module.mjs"

OLDEST_NODE = 20
PERMISSION_NODE = (23, 5)
"""From here on Node calls its permission model `--permission`."""

TIMEOUT_SECONDS = 120.0
"""One answer: a step or a chunk takes seconds at worst, and what takes longer hangs."""

ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
"""The variables that Node gets."""

_HEAD = struct.Struct("<II")


def missing() -> str | None:
    """What this machine lacks to run modules, and how to get it; None if it can."""
    try:
        _command()
    except SetupError as error:
        return str(error)
    return None


def _command() -> list[str]:
    node, version = _find_node()
    bundle = CHECKOUT if CHECKOUT.parents[2].exists() else INSTALLED
    if not bundle.is_file():
        raise SetupError(f"models that are ES modules need {bundle}, which is not built: run `make setup`")
    permission = "--permission" if version >= PERMISSION_NODE else "--experimental-permission"
    # The module comes from whoever submitted the job: it may compute, and touch no file and no process.
    return [
        node,
        "--no-warnings",
        "--experimental-vm-modules",
        permission,
        f"--allow-fs-read={bundle.resolve()}",
        str(bundle.resolve()),
    ]


def _environment() -> dict[str, str]:
    """What Node needs to start, and no more: ours may hold passwords, and NODE_OPTIONS undo what `_command` forbids."""
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}


@cache
def _node_version(node: str) -> tuple[int, ...]:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:2])


def _find_node() -> tuple[str, tuple[int, ...]]:
    node = shutil.which("node")
    version = _node_version(node) if node else ()
    if node is None or not version or version[0] < OLDEST_NODE:
        got = f"Node {'.'.join(map(str, version))}" if version else "none"
        raise SetupError(
            f"to run a model that is an ES module here, Node {OLDEST_NODE} or newer is expected, got {got}: "
            "install it from https://nodejs.org"
        )
    return node, version


class ModuleProcess:
    """A Node process. It ends when nothing refers to this object any more.

    Raises:
        SetupError: Node or the bundle is missing.
    """

    def __init__(self) -> None:
        command = _command()
        # A file, not a pipe: nobody reads what a module logs until something fails.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=_environment()
        )
        self._process = process
        self.close = weakref.finalize(self, _end, process, self._log)

    def ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns the answer's header and body.

        Raises:
            JobError: the module is wrong or failed, with its line; or it did not answer in TIMEOUT_SECONDS.
        """
        timer = threading.Timer(TIMEOUT_SECONDS, self._process.kill)
        timer.start()
        try:
            answer, data = self._exchange(msgspec.json.encode(header), body)
        except (OSError, EOFError) as error:
            timed_out = not timer.is_alive()
            raise JobError(self._last_words(timed_out)) from error
        finally:
            timer.cancel()
        if "error" in answer:
            raise JobError(answer["error"])
        return answer, data

    def _exchange(self, header: bytes, body: bytes) -> tuple[dict[str, Any], bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(_HEAD.pack(len(header), len(body)) + header + body)
        stdin.flush()
        sizes = _HEAD.unpack(_read(stdout, _HEAD.size))
        answer = msgspec.json.decode(_read(stdout, sizes[0]), type=dict[str, Any])
        return answer, _read(stdout, sizes[1])

    def _last_words(self, timed_out: bool) -> str:
        self._process.wait()
        if timed_out:
            return f"the model expects to answer within {TIMEOUT_SECONDS:g} s, got none: does it loop for ever?"
        self._log.seek(0)
        return _told(self._log.read().decode(errors="replace")) or (
            f"the model ended its process with status {self._process.returncode}"
        )


def _told(log: str) -> str:
    """An uncaught error as Node prints it, on one line: `FILE:LINE`, the source, a caret, `SyntaxError: ...`."""
    place = re.search(r"^(\S.*:\d+)\n", log, re.MULTILINE)
    error = re.search(r"^(\w*Error): (.*)$", log, re.MULTILINE)
    if error is None:
        return log.strip()[-500:]
    where = f" at {place[1]}" if place and place.start() < error.start() else ""
    return f"the model raised {error[1]}{where}: {error[2]}"


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, log):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:  # what was not sent is nobody's any more
                continue
