"""Says what a job's scorings came to: which weights are the best, whether its target was met, whether it diverges."""

from __future__ import annotations

from crowdlearn.spec import Best, Divergence, JobSpec, JobStatus, parse_target
from crowdlearn.store import Result
from services.cli.output import in_words

IN_A_ROW = "it needs two in a row"
"""What a target asks for beside being met: services/evaluator/evaluation.py says why."""


def best_words(best: Best, scorings: int) -> str:
    """`best of 14 scorings: accuracy 0.953 at version 1,204`."""
    many = f"{scorings:,} scoring{'' if scorings == 1 else 's'}"
    return f"best of {many}: {best.metric} {best.value:.4g} at {in_words(best.versions)}"


def result_words(spec: JobSpec, result: Result, *, last: bool) -> str:
    """Which weights of a run these are, and why."""
    if result.best is not None:
        began = ", which are those that it began with" if max(result.versions) <= spec.first_version else ""
        return best_words(result.best, result.scorings) + began
    newest = f"newest: {in_words(result.versions)}"
    return newest if last else f"{newest}; {_why_newest(spec, result.scorings)}"


def _why_newest(spec: JobSpec, scorings: int) -> str:
    if not spec.has_held_out:
        return "the job has no held-out data to find the best by"
    if not scorings:
        return "nothing is scored yet"
    if spec.headline is None:
        return "without `until` or a held-out loss nothing says which are the best"
    return f"held-out {spec.headline.metric} was never a finite number"


def told(result: Result) -> dict[str, object]:
    """The same for --json."""
    best = None if result.best is None else {"metric": result.best.metric, "value": result.best.value}
    return {"versions": result.versions, "best": best, "scorings": result.scorings}


def epochs_words(epochs: float) -> str:
    """`3 epochs`, `1 epoch`, `0.5 epochs`."""
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


def target_words(status: JobStatus) -> str | None:
    """That a target was met, but not as it has to be; None of one that was not met, or ended the job."""
    if status.until is None or not status.met or status.reason == "until":
        return None
    if status.state == "finished" and parse_target(status.until).reached(status.metrics or {}):
        # The end says so: its last weights meet it.
        return None
    return f"{status.until} was met {times_words(status.met)}; {IN_A_ROW}"


def times_words(count: int) -> str:
    """`once`, or `3 times`."""
    return "once" if count == 1 else f"{count:,} times"


def divergence_words(status: JobStatus) -> str | None:
    """A few sentences about a job that diverges; None about one that does not."""
    if status.diverging is None:
        return None
    cause, advice = _cause(status.diverging)
    then = "Stop the job, and submit it anew" if status.state == "running" else "Submit it anew"
    return f"Job {status.job} {cause}. {advice}. {then} (docs/operations.md)."


def diverges_words(status: JobStatus) -> str | None:
    """The same in a word or three."""
    if status.diverging is None:
        return None
    return "diverges" if status.diverging.certain else f"held-out {status.diverging.metric} not finite"


def _cause(diverging: Divergence) -> tuple[str, str]:
    smaller = (
        "Take a smaller learning_rate, clip gradients (clip_norm=1 or less), and bring inputs and targets near 0 and 1"
    )
    if diverging.value is not None:
        which = "held-out" if diverging.where == "held_out" else "training"
        return f"diverges: its {which} loss is {diverging.value:.3g}, and began at {diverging.first:.3g}", smaller
    what = f"held-out {diverging.metric} is not a finite number"
    if diverging.certain:
        return f"diverges: {what} any more", smaller
    unscored = f"If its loss is as it should be, look where {diverging.metric} divides by 0 or takes a logarithm of 0"
    return f"cannot be scored, or diverges: {what}", f"{unscored}. Or else: {smaller[0].lower()}{smaller[1:]}"
