"""How a run of `crowdlearn up` ended: in words, as JSON, and whether its target was met. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from crowdlearn.spec import JobSpec, JobStatus
from crowdlearn.store import Result
from services.cli.drops import drop_words
from services.cli.progress import describe
from services.cli.scores import divergence_words, epochs_words, result_words, target_words, told


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    spec: JobSpec
    status: JobStatus
    result: Result
    """The weights that the job gives."""
    file: str | None
    """Where they are; None when nothing was trained."""
    last: bool
    """Whether the newest weights were asked for."""
    seconds: float

    @property
    def reached(self) -> bool:
        """Whether the target was met, in mid-run or by the last weights. Without one, whether it did not diverge."""
        if self.status.reason == "diverged":
            return False
        if self.spec.until is None:
            return self.status.diverging is None or not self.status.diverging.certain
        return self.status.reason == "until" or self.spec.until.reached(self.status.metrics or {})

    def show(self, console: Console) -> None:
        """Prints a few lines for people."""
        console.print(self.words, style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(describe(self.status), highlight=False, soft_wrap=True)
        for warning in filter(None, (divergence_words(self.status), drop_words(self.status))):
            console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
        written = "Nothing was trained, so no weights were written."
        if self.file is not None:
            written = f"Weights: {self.file}, {result_words(self.spec, self.result, last=self.last)}."
        console.print(written, markup=False, highlight=False, soft_wrap=True)

    @property
    def words(self) -> str:
        """How the run ended, and what came of its target."""
        until = self.spec.until
        if self.status.reason == "until":
            return f"Reached {until} after {self.seconds:.1f} s."
        ended = self._ended()
        if until is None or self.status.reason == "diverged":
            return f"{ended}."
        if self.reached:
            return f"{ended}, and the last weights meet {until}."
        return f"{ended}, but {target_words(self.status) or f'{until} was not reached'}."

    def _ended(self) -> str:
        took = f"after {self.seconds:.1f} s"
        if self.status.reason == "epochs":
            return f"All epochs are trained {took}"
        if self.status.reason == "patience":
            metric = self.spec.headline.metric if self.spec.headline else "metric"
            return f"Ended {took}, as held-out {metric} was no better for {epochs_words(self.spec.patience or 0)}"
        if self.status.reason == "diverged":
            return f"Diverged {took}: a lower learning rate may help. The newest weights are the last finite ones"
        return f"Stopped {took}"

    @property
    def told(self) -> dict[str, object]:
        """What --json says."""
        status = self.status
        return {
            "job": status.job,
            "run": status.run,
            "reason": status.reason,
            "seconds": round(self.seconds, 3),
            "versions": status.versions,
            "epoch": status.epoch,
            "minibatches": status.minibatches,
            "dropped": status.dropped,
            "loss": status.loss,
            "metrics": status.metrics,
            "progressive": status.progressive,
            "stream": status.stream,
            "diverging": status.diverging,
            "file": self.file,
            "weights": told(self.result),
        }
