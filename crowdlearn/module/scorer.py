"""Scores held-out chunks with a module's own loss and metrics, in Node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crowdlearn.chunks import rows_of
from crowdlearn.codecs import Vector
from crowdlearn.module.process import ModuleProcess
from crowdlearn.module.source import Source
from crowdlearn.protocol import BatchArray, ParameterArray


def key_words(seed: int) -> tuple[int, int]:
    """The raw threefry key that `jax.random.key(seed)` makes of a job's seed, which has 32 bits."""
    return 0, seed


class RunningModule:
    """A module, loaded into a process of its own.

    Args:
        parameters: of the flat vector.
        arrays: of a row.
    Raises:
        JobError: it is no JavaScript, imports something, fails when it is loaded, or lacks a loss.
        SetupError: Node or the bundle is missing.
    """

    def __init__(self, source: Source, parameters: Sequence[ParameterArray], arrays: Sequence[BatchArray]) -> None:
        self.arrays = tuple(arrays)
        self._process = ModuleProcess()
        self._flat: Vector | None = None
        loaded, _ = self._process.ask(
            {"do": "load", "source": source.text, "file": source.file, "parameters": parameters, "arrays": arrays}
        )
        self.exports: tuple[str, ...] = tuple(loaded["exports"])

    def step(self, flat: Vector, rows: int, batch: bytes, seed: int) -> tuple[float, Vector]:
        """Loss and gradient of a minibatch; `batch` is encoded like a chunk. Raises JobError."""
        self._adopt(flat)
        answer, gradient = self._process.ask({"do": "step", "rows": rows, "key": key_words(seed)}, batch)
        return float(answer["loss"]), np.frombuffer(gradient, "<f4").astype(np.float32)

    def scores(self, flat: Vector, rows: int, chunk: bytes, seed: int) -> dict[str, float]:
        """The loss and the metrics of a chunk, by name. Raises JobError."""
        self._adopt(flat)
        answer, _ = self._process.ask({"do": "score", "rows": rows, "key": key_words(seed)}, chunk)
        return {name: float(value) for name, value in answer["scores"].items()}

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def _adopt(self, flat: Vector) -> None:
        if flat is not self._flat:
            self._process.ask({"do": "parameters"}, flat.astype("<f4", copy=False).tobytes())
            self._flat = flat


class ModuleScorer:
    """A job's scoring function that is the module's own; see crowdlearn.job.scoring.Scorer.

    Args:
        names: of what it measures, as they were when the job was submitted.
    Raises:
        JobError, SetupError: see RunningModule.
    """

    def __init__(
        self,
        source: Source,
        parameters: Sequence[ParameterArray],
        arrays: Sequence[BatchArray],
        names: tuple[str, ...],
        seed: int,
    ) -> None:
        self.names = names
        self._seed = seed
        self._module = RunningModule(source, parameters, arrays)

    def score_chunk(self, flat: Vector, chunk: bytes) -> tuple[int, Vector]:
        """The rows of a held-out chunk, and its metrics in the order of `names`; raises JobError."""
        rows = rows_of(chunk, self._module.arrays)
        scores = self._module.scores(flat, rows, chunk, self._seed)
        return rows, np.array([scores.get(name, np.nan) for name in self.names], np.float32)

    def score_rows(self, flat: Vector, chunk: bytes) -> tuple[int, Vector]:
        """The same: a module takes any number of rows."""
        return self.score_chunk(flat, chunk)
