"""A run at one moment, and how a new run goes on from there. Pure: `store` takes snapshots, `checkpoint` keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from crowdlearn import weights
from crowdlearn.codecs import Vector
from crowdlearn.errors import JobError
from crowdlearn.spec import JobSpec


class Work(msgspec.Struct, frozen=True):
    """How far the rows of a run are trained: lease ordinals as crowdlearn.schedule counts them."""

    next: int = 0
    """The first ordinal that was never leased."""
    done: int = 0
    rows: int = 0
    outstanding: tuple[int, ...] = ()
    """Ordinals that were leased and not reported as trained; they are leased anew."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. Shards are independent: each is consistent, at a version of its own.

    `parameters` and each of the optimizer's `slots` are flat float32 vectors of `spec.size` values.
    """

    spec: JobSpec
    versions: tuple[int, ...]
    parameters: Vector
    slots: tuple[Vector, ...]
    work: Work

    def continued_by(self, spec: JobSpec) -> Snapshot:
        """What a run of `spec` begins with to go on from here.

        Other shards than before take the lowest version of those they are cut from. With other training rows, chunks
        or another seed the epochs are counted from the beginning.

        Raises:
            JobError: `spec` has other parameters or another optimizer, or nothing is left to train.
        """
        source = f"the checkpoint of {self.spec.name}, run {self.spec.run},"
        if spec.optimizer.name != self.spec.optimizer.name:
            raise JobError(
                f"{source} holds the state of {self.spec.optimizer.name}, the job has {spec.optimizer.name}: start "
                "from its parameters alone, with --weights and its parameters.safetensors"
            )

        def moved(flat: Vector) -> Vector:
            return weights.flatten(weights.named(self.spec.parameters, flat), spec.parameters, source)

        versions = tuple(
            min(
                version
                for version, old in zip(self.versions, self.spec.shards, strict=True)
                if old.offset < new.offset + new.size and new.offset < old.offset + old.size
            )
            for new in spec.shards
        )
        return Snapshot(
            spec=msgspec.structs.replace(spec, first_version=versions[0]),
            versions=versions,
            parameters=moved(self.parameters),
            slots=tuple(moved(slot) for slot in self.slots),
            work=self._work_of(spec, source),
        )

    def _work_of(self, spec: JobSpec, source: str) -> Work:
        if _schedule(spec) != _schedule(self.spec):
            return Work()
        total = spec.total_leases
        if total and (self.work.next > total or self.work.done >= total):
            trained = self.work.done / spec.train_chunks
            raise JobError(f"{source} has trained {trained:.1f} epochs, the job has {spec.epochs} in all: give it more")
        return self.work


def _schedule(spec: JobSpec) -> tuple[int, ...]:
    # With a stream the epochs say which ordinal is the pool's first.
    pool = () if spec.stream is None else (spec.epochs, spec.stream.lease_rows)
    return spec.train_rows, spec.chunk_rows, spec.training.seed, *pool


def joined(shards: Sequence[Sequence[Vector]]) -> tuple[Vector, ...]:
    """Each slot over all shards, from the slots of each shard."""
    return tuple(np.concatenate(parts) for parts in zip(*shards, strict=True))
