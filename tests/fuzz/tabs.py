"""Runs programs in tabs of a headless Chromium. A tab that crashes costs only the program that it crashed of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from services.cli.program_page import Answer, Backend, Case, Failure, ProgramPage, headless_chromium

LOAD = 600
"""Programs in one page load: kernels that a page has compiled stay in its memory."""

GPU_ENDED = "Instance dropped"
"""What Chromium says of all that a tab asks of a GPU whose process has ended: the next tab gets a new one."""

Answers = dict[str, Answer | Failure]


class Tabs:
    """One tab at a time, on one backend."""

    def __init__(self, open_page: Callable[[], ProgramPage], backend: Backend) -> None:
        self._open_page, self.backend = open_page, backend
        self._page: ProgramPage | None = None
        self._ran = 0

    def run(self, cases: Mapping[str, Case]) -> Answers:
        """Each case's answer; those of a tab that crashes are run again by halves, on fresh tabs."""
        if not cases:
            return {}
        page = self._tab(len(cases))
        answers = page.run_all(cases, self.backend)
        if not page.crashed and not any(map(_has_lost_its_gpu, answers.values())):
            return answers
        self._close()
        if len(cases) == 1:
            return answers
        names = list(cases)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        return {name: answer for half in halves for name, answer in self.run({n: cases[n] for n in half}).items()}

    def _tab(self, count: int) -> ProgramPage:
        if self._page is not None and self._ran + count > LOAD:
            self._close()
        if self._page is None:
            self._page, self._ran = self._open_page(), 0
        self._ran += count
        return self._page

    def _close(self) -> None:
        if self._page is not None:
            self._page.page.close()
        self._page = None


def _has_lost_its_gpu(answer: Answer | Failure) -> bool:
    return isinstance(answer, Failure) and GPU_ENDED in answer.reason


@contextmanager
def open_tabs(backend: Backend) -> Iterator[Tabs]:
    """Tabs of a Chromium of their own."""
    with headless_chromium() as chromium, chromium.new_context() as context:
        yield Tabs(lambda: ProgramPage(context.new_page()), backend)
