"""`crowdlearn export`: a job's weights as a file, or its forward pass with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from crowdlearn import files, weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.job import Job
from crowdlearn.job_file import load
from crowdlearn.protocol import ParameterArray
from crowdlearn.settings import DEFAULT_REDIS_URL
from services.cli import loop
from services.cli.options import AsJson, LastWeights, RedisUrl
from services.cli.output import print_json
from services.cli.scores import result_words, told
from services.cli.stores import opened

ONNX = ".onnx"


def export(
    job: Annotated[str, typer.Argument(help="The job's name; for ONNX its file.", metavar="JOB|JOB.py")],
    file: Annotated[str | None, typer.Argument(help="The same as --out.", metavar="FILE")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Where to write: .safetensors, .npz or .onnx, here or in a bucket. \\[default: JOB.safetensors]",
            metavar="FILE",
        ),
    ] = None,
    from_weights: Annotated[
        str | None, typer.Option("--weights", help="ONNX of these weights instead of the service's.", metavar="FILE")
    ] = None,
    last: LastWeights = False,
    redis: RedisUrl = DEFAULT_REDIS_URL,
    as_json: AsJson = False,
) -> None:
    """Write a job's weights to a file, at any time: those that scored best on held-out data, or the newest.

    The newest are written where nothing was scored, and with --last. With a job file and FILE.onnx: its forward pass
    `predict` with them.
    """
    defined = load(job) if job.endswith(".py") else None
    name = defined.name if defined else job
    target = out or file or f"{name}.safetensors"
    if not target.endswith(ONNX):
        if from_weights is not None:
            raise JobError(f"--weights are for ONNX, got {target}: copy the file, or name a .onnx")
        exported = loop.run(lambda _: _from_service(name, redis, last))
        weights.save(target, exported.parameters, exported.flat, exported.about)
        _say(Console(), as_json, {"job": name, **exported.told, "file": target}, f"Wrote {target}: {exported.words}.")
        return
    if defined is None:
        raise JobError(f"ONNX holds the function predict of the job's file: crowdlearn export {job}.py --out ...")
    if from_weights is not None and last:
        raise JobError("--last are the service's newest weights, --weights those of a file: give one of them")
    _export_onnx(defined, target, from_weights, redis, last, as_json)


@dataclass(frozen=True)
class Exported:
    """The weights that a service holds of a job."""

    parameters: Sequence[ParameterArray]
    flat: Vector
    about: Mapping[str, str]
    run: str
    told: dict[str, object]
    """What --json says of them."""
    words: str
    """What a person reads."""


async def _from_service(job: str, redis: str | None, last: bool) -> Exported:
    async with opened(redis) as store:
        spec = await store.jobs.spec(job)
        result = await store.result(spec, newest=last)
    words = f"run {spec.run}, {result_words(spec, result, last=last)}"
    return Exported(
        spec.parameters, result.parameters, result.about(spec), spec.run, {"run": spec.run, **told(result)}, words
    )


def _export_onnx(job: Job, target: str, from_weights: str | None, redis: str | None, last: bool, as_json: bool) -> None:
    from crowdlearn.job.prediction import to_onnx

    if from_weights is not None:
        arrays, source, words = weights.read(from_weights), from_weights, from_weights
        about: Mapping[str, str] = {"job": job.name, "weights": Path(from_weights).name}
        said: dict[str, object] = {"weights": from_weights}
    else:
        exported = loop.run(lambda _: _from_service(job.name, redis, last))
        arrays = weights.named(exported.parameters, exported.flat)
        about, said, words = exported.about, exported.told, exported.words
        source = f"job {job.name}, run {exported.run},"
    model = to_onnx(job, arrays, source, about)
    files.write(target, model.data)
    said |= {"job": job.name, "file": target, "inputs": model.inputs, "outputs": model.outputs, "rows": model.rows}
    rows = "any number of rows" if model.rows is None else f"exactly {model.rows} rows, on which the model depends"
    sentence = f"Wrote {target}: {words}; from {', '.join(model.inputs)} to {', '.join(model.outputs)}, {rows}."
    _say(Console(), as_json, said, sentence)


def _say(console: Console, as_json: bool, said: dict[str, object], sentence: str) -> None:
    if as_json:
        print_json(said)
    else:
        console.print(sentence, highlight=False, soft_wrap=True)
