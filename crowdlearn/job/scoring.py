"""The scoring function of a job: written as bytes by whoever submits it, run by the evaluator. Needs JAX in both.

Bytes: a u32 length, a JSON header of that length, then one `jax.export` function for each number of rows that a
held-out chunk may have. Each takes the flat parameters and the chunk's arrays and returns a float32 vector: the loss
(unless the model is an ES module), then the metrics. A module that scores itself has a header and no functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from crowdlearn.chunks import read_chunk, rows_of
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.job.parameters import Parameters
from crowdlearn.module import ModuleScorer, Source
from crowdlearn.module.scorer import key_words
from crowdlearn.program.advice import instead_of
from crowdlearn.program.effects import Quiet
from crowdlearn.program.jax_import import import_export, import_jax
from crowdlearn.program.origin import blamed_on, line_of_function
from crowdlearn.program.remedies import remedy
from crowdlearn.program.results import described, returned, type_of
from crowdlearn.program.signature import Call, Loss, call_of, require_pair
from crowdlearn.program.trace import names_and_shapes
from crowdlearn.program.tracing import as_browsers
from crowdlearn.protocol import BatchArray
from crowdlearn.spec import JobSpec

PLATFORMS = ("cpu", "cuda")
"""Where an evaluator may run."""

LOSS = "loss"
"""The metric that every job has."""

STREAM_SIZES = frozenset((1, 16, 128))
"""As many rows of a stream are scored at a time: together they make up any number, and few calls score many."""

Metrics = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]


class _Function(msgspec.Struct, frozen=True):
    rows: int
    size: int


class _Header(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    arrays: tuple[BatchArray, ...]
    functions: tuple[_Function, ...]
    by: Literal["jax", "module"] = "jax"


@dataclass(frozen=True)
class Scoring:
    """A scoring function as bytes, and the names of what it returns."""

    names: tuple[str, ...]
    data: bytes


def export(
    loss: Loss | None,
    metrics: Metrics | None,
    parameters: Parameters,
    arrays: tuple[BatchArray, ...],
    chunk_sizes: Iterable[int],
    seed: int = 0,
    batch_rows: int | None = None,
) -> Scoring:
    """Writes the scoring of held-out chunks as bytes.

    Args:
        loss, metrics: the user's functions of (parameters, batch); at least one of them. A loss that takes a key gets
            that of `seed`, unless `metrics` returns a `loss` of its own.
        arrays: of a held-out row.
        chunk_sizes: the numbers of rows that a chunk may have: a full one and the last.
        batch_rows: for how many the loss was traced before, without an error.
    Raises:
        JobError: metrics raises, or returns something else than scalars by name; with the user's line.
    """
    jax = import_jax()
    loss_of, has_key = without_key(jax, loss, seed), loss is not None and call_of(loss).takes_key
    functions, names = [], tuple[str, ...]()
    for rows in sorted(set(chunk_sizes)):
        batch = {a.name: jax.ShapeDtypeStruct((rows, *a.shape), a.dtype) for a in arrays}
        measured = _names(jax, metrics, parameters, batch, may_be_loss=has_key)
        names = (LOSS,) * (loss is not None) + measured
        blamed = metrics if loss is None else loss
        with _told_of_rows(rows, batch_rows):
            functions.append((rows, _export(jax, loss_of, metrics, parameters, batch, names, blamed)))
    header = _Header(names, arrays, tuple(_Function(rows, len(data)) for rows, data in functions))
    return Scoring(names, _headed(header) + b"".join(data for _, data in functions))


@contextmanager
def _told_of_rows(rows: int, batch_rows: int | None) -> Iterator[None]:
    """Says of a loss that cannot be traced for `rows`, as it could for a minibatch's, that this is the difference."""
    try:
        yield
    except JobError as error:
        # Whatever else is wrong has its own advice, or would have been wrong before.
        if batch_rows in (None, rows) or error.__cause__ is None or remedy(error.__cause__):
            raise
        raise JobError(
            f"{error}; rows are scored {rows:,} at once, and a minibatch has {batch_rows:,}: take their number from "
            "the batch, such as len(batch[NAME]), and not from a constant or an array of that many"
        ) from error


def by_module(names: tuple[str, ...], arrays: tuple[BatchArray, ...]) -> Scoring:
    """The scoring of a model that is an ES module and measures `names` itself."""
    return Scoring(names, _headed(_Header(names, arrays, (), "module")))


def _headed(header: _Header) -> bytes:
    head = msgspec.json.encode(header)
    return struct.pack("<I", len(head)) + head


def _header(data: bytes) -> tuple[_Header, int]:
    (length,) = struct.unpack_from("<I", data)
    return msgspec.json.decode(data[4 : 4 + length], type=_Header), 4 + length


def without_key(jax: Any, loss: Loss | None, seed: int) -> Loss | None:
    """The loss as a function of (parameters, batch); its key is always the same, so that curves are smooth."""
    if loss is None:
        return None
    call = call_of(loss)
    return lambda tree, batch: call(tree, batch, *keys_of(jax, call, seed))


def keys_of(jax: Any, call: Call, seed: int) -> tuple[Any, ...]:
    """The key of JAX that a loss is given wherever it is to be the same every time; empty if it takes none."""
    if not call.takes_key:
        return ()
    return (jax.random.wrap_key_data(np.array(key_words(seed), np.uint32), impl="threefry2x32"),)


def _names(
    jax: Any, metrics: Metrics | None, parameters: Parameters, batch: Mapping[str, Any], *, may_be_loss: bool
) -> tuple[str, ...]:
    if metrics is None:
        return ()
    require_pair("metrics", metrics)
    flat = jax.ShapeDtypeStruct(parameters.flat.shape, "float32")
    with as_browsers(jax):
        given = names_and_shapes(jax, _shapes(jax, parameters), batch)
        with blamed_on("metrics", given, metrics):
            results = returned(jax, lambda flat, batch: metrics(parameters.cut(flat), batch), flat, batch)
    line = line_of_function(metrics)
    if not isinstance(results, Mapping) or not all(isinstance(name, str) for name in results):
        got = "nothing (None): is a `return` missing?" if results is None else described(jax, results)
        raise JobError(f"metrics returns scalars by name, such as {{'accuracy': ...}}, got {got} from {line}")
    for name, result in results.items():
        if not name.isidentifier() or (name == LOSS and not may_be_loss):
            raise JobError(
                f"a metric expects a name of letters, digits and _ other than {LOSS!r}, got {name!r} from {line}"
            )
        found = type_of(jax, result)
        if found is None or found[0] != () or found[1].startswith(("complex", "key<")):
            mean = ": take its mean" if found and found[0] else ""
            raise JobError(f"metric {name} expects a scalar, got {described(jax, result)} from {line}{mean}")
    return tuple(sorted(results.keys() - {LOSS}))


def _shapes(jax: Any, parameters: Parameters) -> Any:
    return parameters.tree([jax.ShapeDtypeStruct(array.shape, "float32") for array in parameters.arrays])


def _export(
    jax: Any,
    loss: Loss | None,
    metrics: Metrics | None,
    parameters: Parameters,
    batch: Mapping[str, Any],
    names: tuple[str, ...],
    blamed: Callable[..., Any] | None,
) -> bytes:
    def score(flat: Any, batch: Mapping[str, Any]) -> Any:
        tree = parameters.cut(flat)
        values = dict(metrics(tree, batch)) if metrics else {}
        if loss and LOSS not in values:
            values[LOSS] = loss(tree, batch)
        return jax.numpy.stack([jax.numpy.asarray(values[name], "float32") for name in names])

    flat = jax.ShapeDtypeStruct(parameters.flat.shape, "float32")
    what = "the loss of held-out data" if loss else "metrics"
    with as_browsers(jax):
        given = names_and_shapes(jax, _shapes(jax, parameters), batch)
        with blamed_on(what, given, blamed):
            # What is printed or checked cannot be written as bytes.
            quiet = Quiet(score, flat, batch)
            _require_no_callback(quiet)
            exported = import_export().export(jax.jit(quiet.run), platforms=PLATFORMS)(flat, batch)
    data: bytes = bytes(exported.serialize())
    return data


def _require_no_callback(quiet: Quiet) -> None:
    """Of a loss, tracing has refused it before."""
    if quiet.callback is not None:
        name, line = quiet.callback
        where = f" at {line}" if line else ""
        raise JobError(f"metrics uses `{name}`{where}, which an evaluator cannot execute{instead_of(name)}")


class Scorer:
    """A scoring function, read from bytes and compiled when first used.

    Raises:
        JobError: the bytes are not a scoring function that this JAX can read.
        SetupError: JAX is not installed.
    """

    def __init__(self, data: bytes) -> None:
        jax, deserialize = import_jax(), import_export().deserialize
        try:
            header, offset = _header(data)
            self.names, self.arrays = header.names, header.arrays
            self._functions: dict[int, Any] = {}
            for function in header.functions:
                exported = deserialize(bytearray(data[offset : offset + function.size]))
                self._functions[function.rows] = jax.jit(exported.call)
                offset += function.size
        except Exception as error:
            raise JobError(f"expected a scoring function that this version of JAX can read: {error}") from error

    def score_chunk(self, flat: Vector, chunk: bytes) -> tuple[int, Vector]:
        """The rows of a held-out chunk, and its metrics in the order of `names`.

        Args:
            flat: the model's parameters.
            chunk: as the job stored it.
        Raises:
            JobError: the chunk has a number of rows that the function was not written for.
        """
        return self._score(flat, read_chunk(chunk, self.arrays))

    def score_rows(self, flat: Vector, chunk: bytes) -> tuple[int, Vector]:
        """The same of any number of rows of a stream, as the mean over the rows of STREAM_SIZES at a time."""
        arrays, scored, done = read_chunk(chunk, self.arrays), list[tuple[int, Vector]](), 0
        total = rows_of(chunk, self.arrays)
        for rows in sorted(STREAM_SIZES, reverse=True):
            while total - done >= rows:
                scored.append(self._score(flat, {name: each[done : done + rows] for name, each in arrays.items()}))
                done += rows
        return total, np.average([values for _, values in scored], axis=0, weights=[rows for rows, _ in scored])

    def _score(self, flat: Vector, batch: Mapping[str, Any]) -> tuple[int, Vector]:
        rows = len(next(iter(batch.values())))
        if rows not in self._functions:
            raise JobError(f"a held-out chunk expects {' or '.join(map(str, self._functions))} rows, got {rows}")
        with as_browsers(import_jax()):
            return rows, np.asarray(self._functions[rows](flat, batch))

    def score(self, flat: Vector, chunks: Iterable[bytes]) -> dict[str, float]:
        """The metrics of held-out chunks: each chunk's weighed by its rows, so that means stay means.

        Raises:
            JobError: a chunk does not fit, or there is none.
        """
        return mean(self.names, [self.score_chunk(flat, chunk) for chunk in chunks])


def mean(names: Sequence[str], scored: Sequence[tuple[int, Vector]]) -> dict[str, float]:
    """What `score_chunk` gave for each chunk, as one: weighed by rows. Raises JobError if there is none."""
    if not scored:
        raise JobError("scoring expects at least 1 held-out chunk, got 0")
    rows = [count for count, _ in scored]
    values = np.average(np.array([values for _, values in scored], np.float64), axis=0, weights=rows)
    return dict(zip(names, values.tolist(), strict=True))


def read(data: bytes, spec: JobSpec, program: bytes) -> Scorer | ModuleScorer:
    """The scoring function that a run stored.

    Args:
        program: the run's model.
    Raises:
        JobError: this version of JAX cannot read it; or the module fails.
        SetupError: JAX is not installed; or Node, for a module that scores itself.
    """
    try:
        header, _ = _header(data)
    except (struct.error, msgspec.MsgspecError) as error:
        raise JobError(f"expected a scoring function of this version of CrowdLearn: {error}") from error
    if header.by == "jax":
        return Scorer(data)
    source = Source("model.js", program.decode())
    return ModuleScorer(source, spec.parameters, header.arrays, header.names, spec.training.seed)
