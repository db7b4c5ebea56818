"""Names all keys of a run, from how many chunks, shards and partitions it has: what is uploaded, what training adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crowdlearn.spec import JobSpec
from crowdlearn.store import keys
from crowdlearn.store.connection import Connection
from crowdlearn.store.shards import FIRST_BLOB

KEYS_AT_A_TIME = 1000
"""Of one round trip: a run may have a million chunks."""

OF_PARTITION = (keys.items, keys.answered, keys.pool, keys.held_out_pool, keys.failed, keys.raw)
"""What the processing of items adds; rows of a sender's own and chunks of the pool go by themselves."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is of a run."""

    run: str
    train_chunks: int
    held_out_chunks: int
    shards: int
    partitions: int = 0

    @classmethod
    def of(cls, spec: JobSpec) -> Extent:
        """That of a job."""
        partitions = spec.stream.partitions if spec.stream is not None else 0
        return cls(spec.run, spec.train_chunks, spec.held_out_chunks, len(spec.shards), partitions)

    def chunks(self) -> list[str]:
        """The dataset."""
        train = [keys.train_chunk(self.run, index) for index in range(self.train_chunks)]
        return train + [keys.held_out_chunk(self.run, index) for index in range(self.held_out_chunks)]

    def required(self) -> list[str]:
        """What is uploaded of every run."""
        first = [
            name
            for shard in range(self.shards)
            for name in (
                keys.manifest(self.run, shard),
                keys.parameters(self.run, shard, FIRST_BLOB),
                keys.slots(self.run, shard, FIRST_BLOB),
            )
        ]
        names = [keys.contents(self.run)] if self.train_chunks else []
        names += self._of_partitions(keys.item_state)
        return [keys.spec(self.run), keys.state(self.run), keys.program(self.run), *names, *self.chunks(), *first]

    def optional(self) -> list[str]:
        """What is uploaded of some runs: a scoring function, a forward program, a page, a checkpoint's work."""
        kinds = (keys.metrics, keys.predict, keys.page, keys.work, keys.leases)
        return [key(self.run) for key in kinds]

    def leading(self) -> list[str]:
        """The keys whose time to live scripts give to what they write late."""
        manifests = [keys.manifest(self.run, shard) for shard in range(self.shards)]
        return [keys.state(self.run), *manifests, *self._of_partitions(keys.item_state)]

    def values(self, blobs: Sequence[str]) -> list[str]:
        """The shards' newest values, of these names."""
        kinds = (keys.parameters, keys.slots)
        return [key(self.run, shard, blob) for shard, blob in enumerate(blobs) for key in kinds]

    def following(self, blobs: Sequence[str]) -> list[str]:
        """All other keys of a run that was trained; `blobs` are the names of the shards' newest values."""
        of_run = (
            keys.spec,
            keys.program,
            keys.predict,
            keys.page,
            keys.contents,
            keys.metrics,
            keys.curve,
            keys.work,
            keys.leases,
        )
        of_training = (keys.grants, keys.booked, keys.replicas, keys.training, keys.refusals, keys.scorings, keys.best)
        names = [key(self.run) for key in (*of_run, *of_training)] + self.chunks()
        names += self.values(blobs)
        names += self._of_partitions(*OF_PARTITION)
        for shard in range(self.shards):
            names += [keys.stream(self.run, shard), keys.applied(self.run, shard), keys.ledger(self.run, shard)]
        return names

    def _of_partitions(self, *kinds: Callable[[str, int], str]) -> list[str]:
        return [key(self.run, partition) for partition in range(self.partitions) for key in kinds]


async def counted(connection: Connection, run: str) -> Extent:
    """The extent of a run whose specification cannot be read, by what is there: up to KEYS_AT_A_TIME too large."""

    async def count(key: Callable[[int], str]) -> int:
        start = 0
        while any(await connection.batch([("EXISTS", key(start + index)) for index in range(KEYS_AT_A_TIME)])):
            start += KEYS_AT_A_TIME
        return start

    return Extent(
        run,
        await count(lambda index: keys.train_chunk(run, index)),
        await count(lambda index: keys.held_out_chunk(run, index)),
        await count(lambda shard: keys.manifest(run, shard)),
        await count(lambda partition: keys.item_state(run, partition)),
    )
