"""Runs traced models in a tab of a headless Chromium, on any backend. Compares and judges nothing."""

from __future__ import annotations

import base64
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from crowdlearn.codecs import Vector
from crowdlearn.errors import SetupError
from crowdlearn.protocol import BatchLayout, ParameterArray
from services.cli.browsers import FLAGS, find_chromium
from services.gateway.bundle import Bundle
from services.gateway.headers import ISOLATION

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

Backend = Literal["wasm", "webgpu", "webgl"]
BACKENDS: tuple[Backend, ...] = ("wasm", "webgpu", "webgl")

GPU_FLAGS = ["--enable-unsafe-webgpu", "--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis"]
"""WebGPU on Linux, and where there is no GPU, on SwiftShader, which imitates one. WebGL falls back to it by itself.

A program that ended the GPU's process must not take it from those after it."""

ORIGIN = "http://localhost/"
"""A secure context, which WebGPU asks for. Nothing listens there: the tab's requests are answered in this process."""

FOLDER = "check"
"""Of the bundle. Gateways do not serve it."""

PAGE = "<!doctype html><title>crowdlearn check</title>"
CALL = """async ([name, given]) => {
    const module = await import("/check.js");
    return module[name](...given).catch(({ message }) => ({ failure: message }));
}"""


@dataclass(frozen=True)
class ModuleLayout:
    """The arrays that a module's functions are given: see web_worker/src/executor/module.ts."""

    parameters: tuple[ParameterArray, ...]
    batch: BatchLayout


@dataclass(frozen=True)
class Case:
    """A program and its inputs: the flat parameters, the batch arrays in the program's order, and the random key.

    With `module` the program is an ES module, whose functions are given these arrays.
    """

    program: bytes
    parameters: Vector
    batch: Sequence[NDArray[Any]]
    key: tuple[int, int] = (0, 0)
    """The minibatch's random key; a program that draws nothing ignores it."""
    module: ModuleLayout | None = None

    def as_argument(self) -> dict[str, Any]:
        """As web_worker/src/check.ts takes it."""
        return {
            "program": self.program.decode(),
            "module": msgspec.to_builtins(self.module),
            "parameters": _base64(self.parameters.astype("<f4")),
            "batch": [_base64(_held(array)) for array in self.batch],
            "key": self.key,
        }


@dataclass(frozen=True)
class Answer:
    """A browser's loss and flat gradient, and its times: of the first step, which compiles, and of those after it."""

    loss: float
    gradient: Vector
    first_milliseconds: float
    step_milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Failure:
    """Why a browser gave no answer."""

    reason: str


@dataclass(frozen=True)
class Processor:
    """What a backend computes on, and whether software imitates it."""

    name: str
    is_software: bool


class ProgramPage:
    """A tab of `browser` that runs programs. Close it by closing its `page`."""

    def __init__(self, page: Page, folder: Path | None = None) -> None:
        self.page, self._bundle = page, Bundle(folder)
        self.crashed = False
        """Whether the tab is gone; what ran in it then has failed."""
        _require_bundle(self._bundle)
        page.route(f"{ORIGIN}**", self._answer)
        page.goto(ORIGIN)

    def processor(self, backend: Backend) -> Processor | None:
        """What `backend` computes on in this browser; None if it does not have it."""
        found = self._call("describe", backend)
        return None if not found or "failure" in found else Processor(found["name"], found["isSoftware"])

    def run(self, case: Case, backend: Backend, steps: int = 0, seconds: float = 0.0) -> Answer | Failure:
        """One step, and up to `steps` more within `seconds` to time them."""
        return _answer(self._call("run", case.as_argument(), backend, steps, seconds))

    def start(self, case: Case, backend: Backend) -> Answer | Failure:
        """One step; what was compiled for it stays in the tab for `again`."""
        return _answer(self._call("start", case.as_argument(), backend))

    def again(self, steps: int, seconds: float) -> tuple[float, ...]:
        """The milliseconds of up to `steps` more steps within `seconds`; none when the tab crashed."""
        found = self._call("again", steps, seconds)
        return () if "failure" in found else tuple(found)

    def run_all(self, cases: Mapping[str, Case], backend: Backend) -> dict[str, Answer | Failure]:
        """One step of each case, in one round trip. If the tab crashes, each of them is a Failure."""
        answers = self._call("runAll", [case.as_argument() for case in cases.values()], backend)
        if isinstance(answers, dict):
            return dict.fromkeys(cases, Failure(answers["failure"]))
        return {name: _answer(each) for name, each in zip(cases, answers, strict=True)}

    def _call(self, name: str, *given: Any) -> Any:
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(CALL, [name, list(given)])
        except Error as error:  # the tab crashed: out of memory, or its GPU process did
            self.crashed = True
            return {"failure": error.message.splitlines()[0]}

    def _answer(self, route: Route) -> None:
        name = urlsplit(route.request.url).path.removeprefix("/")
        if not name:
            route.fulfill(body=PAGE, content_type="text/html", headers=ISOLATION)
            return
        found = self._bundle.file(name, FOLDER)
        if found is None:
            route.fulfill(status=404)
        else:
            route.fulfill(body=found.body, content_type=found.media_type, headers=ISOLATION)


def require_chromium(instead: str = "pass --no-browser") -> str:
    """The path of a Chromium that can be driven and has a bundle to run: asked before anything is computed for it.

    Args:
        instead: what a person without one can do.
    Raises:
        SetupError: no Chromium, no playwright, or no bundle.
    """
    try:
        import playwright.sync_api  # noqa: F401  # whether it is there
    except ImportError:
        raise SetupError(
            f"running a model in a browser needs playwright: pip install 'crowdlearn[browsers]', or {instead}"
        ) from None
    _require_bundle(Bundle(None))
    return find_chromium(instead)


def _require_bundle(bundle: Bundle) -> None:
    if bundle.file("check.js", FOLDER) is None:
        raise SetupError("the browser bundle is missing: run `make setup`, or `npm ci && npm run build` in web_worker")


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """A Chromium with every backend that this machine can offer.

    Raises:
        SetupError: no Chromium, playwright is not installed, or Chromium ends within the block.
    """
    path = require_chromium()
    from playwright.sync_api import Error, sync_playwright

    # JAX warns of every fork; this child executes another program at once, which is safe.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=[*FLAGS, *GPU_FLAGS], chromium_sandbox=os.geteuid() != 0
            )
        except Error as error:
            raise SetupError(f"{path} does not start: {error.message.splitlines()[0]}") from error
        try:
            yield browser
        except Error as error:
            raise SetupError(f"{path} has ended: {error.message.splitlines()[0]}") from error
        finally:
            browser.close()


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _held(array: NDArray[Any]) -> NDArray[Any]:
    """The array in the type that an executor holds it in."""
    if array.dtype.kind == "f":
        return array.astype("<f4")
    return array.astype("<u4" if array.dtype == np.uint32 else "<i4")


def _answer(given: Mapping[str, Any]) -> Answer | Failure:
    if "failure" in given:
        return Failure(given["failure"])
    return Answer(
        float(given["loss"]),
        np.frombuffer(base64.b64decode(given["gradient"]), "<f4").astype(np.float32),
        given["firstMilliseconds"],
        tuple(given["stepMilliseconds"]),
    )
