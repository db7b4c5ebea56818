"""Lets Ctrl-C end what JAX traces and compiles.

Python drops an exception that is raised in a callback, such as JAX's of the garbage collector, and raises none while
compiled code runs. An exception that is raised while a compiled module starts can end the process: what is written in
C++ may let none out.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import NoReturn

STATUS = 130
"""The exit status of a command that Ctrl-C has ended: 128 and the signal's number, as of every other program."""

AGAIN_SECONDS = 0.02
"""By then the callback has returned that an interruption was lost in. It comes again until something heeds it."""

GRACE_SECONDS = 3.0
"""What runs has so long to end in order: a browser is closed, an upload taken back."""


def raise_what_was_dropped() -> None:
    """From now on a KeyboardInterrupt that Python drops comes again, until something heeds it."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _interrupt_again()
        else:
            before(unraisable)

    sys.unraisablehook = hook


def end_if_interrupted(ended: SystemExit) -> None:
    """Ends a command that Ctrl-C has ended with 130.

    CPython would end by the signal instead, which is another status, if it came while text was executed, as dataclasses
    do: it takes that for unhandled for ever after.
    """
    if ended.code == STATUS:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_without_threads(STATUS)


def end_without_threads(status: int) -> NoReturn:
    """Ends the process as `sys.exit` does, but waits for no thread: what JAX computes in one cannot be interrupted."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def _interrupt_again() -> None:
    # Not `Thread.start`, which waits for the thread: the interruption could come while this still waits.
    _thread.start_new_thread(_interrupt_soon, ())


def _interrupt_soon() -> None:
    time.sleep(AGAIN_SECONDS)
    _interrupt()


def _interrupt() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # also wakes it from what it waits for
    else:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C within the block raises KeyboardInterrupt, also where the block fails otherwise or goes on."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        if _starts_a_compiled_module(frame):
            _interrupt_again()
        else:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        with _ended_in_time():
            yield
    except Exception as error:
        if pressed.is_set():  # an import that is interrupted says that there is no such module
            raise KeyboardInterrupt from error
        raise
    finally:
        # The command ends now: what comes a second time, or again, would interrupt its last lines.
        signal.signal(signal.SIGINT, signal.SIG_IGN if pressed.is_set() else signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


def _starts_a_compiled_module(frame: FrameType | None) -> bool:
    while frame is not None:
        loads = frame.f_code.co_name in ("create_module", "exec_module")
        if loads and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _ended_in_time() -> Iterator[None]:
    """Ends the process when the block goes on after Ctrl-C, and Python runs no handler or nothing heeds it."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    left = threading.Event()
    threading.Thread(target=_watch, args=(reading, left), name="Ctrl-C", daemon=True).start()
    # The system writes here at once, also while compiled code runs for minutes.
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        writing.close()


def _watch(reading: socket.socket, left: threading.Event) -> None:
    with reading:
        while numbers := reading.recv(64):
            if signal.SIGINT in numbers and not left.wait(GRACE_SECONDS):
                _end()


def _end() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # a spinner has hidden the cursor
        sys.stderr.flush()
    os._exit(STATUS)
