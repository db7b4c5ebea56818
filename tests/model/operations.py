"""What the processes of the model do: what services do with the store, and a note in the books of what came of it."""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from redis.exceptions import ResponseError

from crowdlearn import checkpoint, files
from crowdlearn.errors import FileError, OutdatedError
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.schedule import rows_of
from crowdlearn.snapshot import Snapshot, Work
from crowdlearn.spec import JobSpec
from crowdlearn.store import Appended, Holder, Scoring, keys, position, resume
from services.aggregator.shard_writer import ShardWriter
from tests.model.books import NAME, PLACES, SHARDS, Books, Gradient, Replica, Run, job
from tests.model.world import Process, World

REMEMBER_SECONDS = 3600.0
LEASE_SECONDS = 60.0


@dataclass
class Owned:
    """A shard in the memory of its owner, with the leases that leave its ledger with the next commit."""

    writer: ShardWriter
    over: set[int] = field(default_factory=set)


class Operations:
    """Of one history. Each takes the process that does it."""

    def __init__(self, world: World, books: Books) -> None:
        self._world, self._books = world, books
        self._numbers = itertools.count(1)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.snapshots: list[Snapshot] = []

    def close(self) -> None:
        """Removes the checkpoints."""
        if self._folder is not None:
            self._folder.cleanup()

    # --- owners ---

    async def claim(self, owner: Process, run: Run, shards: Sequence[int]) -> None:
        """Claims, and loads what it got."""
        wanted = [(run.spec.run, shard) for shard in shards]
        for index in shards:
            # Whatever comes of it: who had it may not have it any more.
            run.shards[index].owner = None
        for shard, fence in (await owner.store.shards.claim_all(wanted, owner.member, LEASE_SECONDS)).items():
            owner.memory.pop(shard, None)
            if isinstance(fence, Exception):
                raise fence
            if fence is not None:
                await self._load(owner, run, shard[1], fence)

    async def _load(self, owner: Process, run: Run, index: int, fence: int) -> None:
        state = await owner.store.shards.load(run.spec.run, index)
        if state.manifest.fence != fence:
            return
        writer = ShardWriter(run.spec, index, state, REMEMBER_SECONDS)
        owned = owner.memory[run.spec.run, index] = Owned(writer)
        run.shards[index].owner = owner.member
        # The owner before this one may have died between a commit and its booking.
        await self._book(owner, run, index, owned, writer.take_full())
        self._world.happened["claimed"] += 1

    async def work(self, owner: Process, run: Run, count: int) -> None:
        """Claims what it does not have, applies up to `count` entries that wait there and commits them."""
        missing = [index for index in range(SHARDS) if (run.spec.run, index) not in owner.memory]
        if missing:
            await self.claim(owner, run, missing)
        for index in range(SHARDS):
            await self.absorb(owner, index, count)
            await self.commit(owner, index)

    async def renew(self, owner: Process) -> None:
        """Drops what it has lost."""
        shards = sorted(owner.memory)
        for shard, kept in (await owner.store.shards.renew_all(shards, owner.member, LEASE_SECONDS)).items():
            if not kept:
                owner.memory.pop(shard, None)

    async def release(self, owner: Process, index: int) -> None:
        """Gives its leases on this shard of all runs back."""
        for run, shard in sorted(owner.memory):
            if shard == index:
                owner.memory.pop((run, shard))
                await owner.store.shards.release(run, shard, owner.member)

    async def absorb(self, owner: Process, index: int, count: int) -> None:
        """Reads a few entries of this shard of all runs, and applies them in its memory."""
        for run, shard in sorted(owner.memory):
            if shard == index:
                writer = owner.memory[run, shard].writer
                read = await owner.store.streams.read({(run, shard): writer.offset}, count)
                writer.now_milliseconds = 1000 * await owner.store.now()
                absorbed = writer.absorb(read.get((run, shard), []))
                self._world.happened.update({str(outcome): count for outcome, count in absorbed.outcomes.items()})

    async def commit(self, owner: Process, index: int) -> None:
        """Commits what it has absorbed of this shard of all runs."""
        for name, shard in sorted(owner.memory):
            owned = owner.memory[name, shard]
            if shard == index and owned.writer.pending:
                async with self._dropped_unless_done(owner, (name, shard)):
                    await self._commit(owner, self._books.runs[name], shard, owned)

    async def _commit(self, owner: Process, run: Run, index: int, owned: Owned) -> None:
        shard, age, had = run.shards[index], self._world.ages, run.shards[index].owner
        writer, member = owned.writer, owner.member
        writer.drop(owned.over)
        owned.over = set()
        commit, full = writer.take(), writer.take_full()
        try:
            after = await owner.store.shards.commit(run.spec.run, index, commit)
        except OutdatedError:
            still = shard.owner == had == member and age == self._world.ages
            # Of a run that was replaced nothing is left after an hour, but for what came late.
            still = still and await self._world.look._connection.call("EXISTS", keys.manifest(run.spec.run, index))
            assert not still, f"{member} owns shard {index}, and its commit was refused"
            raise
        except ResponseError:
            run.ended_commits += 1
            raise
        assert shard.owner in (None, member), f"{member} committed shard {index}, which {shard.owner} owns"
        if position(after.offset) != position(commit.offset):
            writer.offset = after.offset
            self._world.happened["began a stream anew"] += 1
        self._world.happened["committed"] += 1

        await self._book(owner, run, index, owned, full)
        counted = writer.leases - set(full)
        owned.over |= counted - await owner.store.data.outstanding(run.spec.run, sorted(counted))

    async def _book(self, owner: Process, run: Run, index: int, owned: Owned, full: list[int]) -> None:
        if full:
            trained = await owner.store.data.book(run.spec, index, full)
            self._world.happened["trained"] += len(trained)
            owned.over |= set(trained)

    @asynccontextmanager
    async def _dropped_unless_done(self, owner: Process, shard: tuple[str, int]) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            owner.memory.pop(shard, None)
            raise

    # --- gateways ---

    async def push(self, gateway: Process, run: Run, number: int, shards: Sequence[int]) -> None:
        """Sends what was not acknowledged of a replica, in order, and keeps what is not acknowledged again."""
        replica = run.replicas[number]
        waiting = {index: deque(replica.unheard[index]) for index in shards}
        # One of each shard at a time, as a gateway does: none may overtake one that fails.
        while batch := [(index, queue.popleft()) for index, queue in waiting.items() if queue]:
            for index, gradient in batch:
                run.shards[index].sent[gradient.replica, gradient.sequence] = gradient
            entries = [gradient.entry(run.spec.run, index) for index, gradient in batch]
            for (index, gradient), outcome in zip(batch, await gateway.store.streams.append(entries), strict=True):
                if not isinstance(outcome, Appended):
                    waiting[index].clear()
                # What Redis has lost meanwhile, or heard of a replica that others may have forgotten, is no promise.
                elif run.replicas[number] is replica:
                    self._acknowledge(run, replica, index, gradient)

    def _acknowledge(self, run: Run, replica: Replica, index: int, gradient: Gradient) -> None:
        if gradient in replica.unheard[index]:
            replica.unheard[index].remove(gradient)
        run.shards[index].promised.add(gradient)
        self._world.happened["acknowledged"] += 1

    async def repeat(self, gateway: Process, run: Run, index: int, place: int) -> None:
        """Sends a frame again that somebody has sent before."""
        sent = sorted(run.shards[index].sent.values(), key=lambda gradient: gradient.place)
        if sent:
            await gateway.store.streams.append([sent[place % len(sent)].entry(run.spec.run, index)])

    async def lease(self, gateway: Process, run: Run, number: int, count: int) -> None:
        """Leases rows to a replica, on a socket of this gateway."""
        replica = run.replicas[number]
        granted = await gateway.store.data.lease(run.spec, count, LEASE_SECONDS, self._holder(gateway, run, number))
        if isinstance(granted, list) and run.replicas[number] is replica:
            replica.rows += [grant for grant in granted for _ in range(rows_of(run.spec, grant.lease))]
            self._world.happened["leased"] += 1

    async def farm(self, gateway: Process, run: Run, number: int, count: int) -> None:
        """Leases rows to a replica, which pushes as many gradients of one each."""
        await self.lease(gateway, run, number, count)
        for _ in range(count):
            self._books.push(run, run.replicas[number])
        await self.push(gateway, run, number, range(SHARDS))

    async def use(self, gateway: Process, run: Run, number: int, what: str) -> None:
        """Extends a replica's leases, gives them back, leaves with its socket, or is back on one."""
        leases = sorted({grant.lease for grant in run.replicas[number].rows})
        holder, data = self._holder(gateway, run, number), gateway.store.data
        if what == "extend":
            await data.extend(run.spec.run, leases, LEASE_SECONDS)
        elif what == "give back":
            run.replicas[number].rows.clear()
            await data.release(run.spec.run, holder, leases)
        elif what == "leave":
            await data.leave(run.spec.run, holder, leases, 1.0)
        else:
            await data.take_held(run.spec.run, holder, LEASE_SECONDS)

    def _holder(self, gateway: Process, run: Run, number: int) -> Holder:
        return Holder(run.replicas[number].id, gateway.member)

    async def report(self, gateway: Process, run: Run) -> None:
        """Whatever else is written of a run outside commits."""
        name, store = run.spec.run, gateway.store
        await store.data.count_dropped(name, 1)
        await store.stalls.report(name, 0, {"stale": 2}, 1000.0)
        await store.fleet.report_replicas(name, gateway.member, 2)
        await store.curve.record(name, "train", 1.0, 1, {"loss": 1.0})
        await store.data.warm_up(name, run.replicas[0].id, 0)
        await store.data.end_warm_up(name, run.replicas[0].id)

    async def disturb(self, run: Run, index: int, ahead_milliseconds: int) -> None:
        """A stranger appends what is no gradient, with an id that is ahead of the clock."""
        stream, call = keys.stream(run.spec.run, index), self._world.look._connection.call
        last, _ = position(await self._world.look.streams.last_id(run.spec.run, index))
        now = round(1000 * await self._world.look.now())
        await call(
            "XADD",
            stream,
            f"{max(last + 1, run.shards[index].offset[0] + 1, now) + ahead_milliseconds}-0",
            "r",
            "x",
            "f",
            bytes(HEADER_BYTES),
        )
        self._books.rejuvenate(run)

    # --- evaluator and checkpointer ---

    async def score(self, evaluator: Process, run: Run, accuracy: float) -> None:
        """Scores the newest parameters."""
        age = self._world.ages
        flat, versions = await evaluator.store.shards.flat(run.spec)
        run.scored.setdefault((accuracy, tuple(versions)), []).append(flat)
        scoring = Scoring(versions, {"accuracy": accuracy}, flat, 0.0)
        if await evaluator.store.scorings.count(run.spec, scoring) is not None and age == self._world.ages:
            run.counted.append(accuracy)
            self._world.happened["scored"] += 1

    async def check(self, checkpointer: Process, run: Run, breaks_at: int) -> None:
        """Writes a checkpoint, which may end before any of its files is written; and reads the newest."""
        work = await checkpointer.store.data.work(run.spec.run)
        snapshot = await checkpointer.store.shards.snapshot(run.spec, work)
        self._require_true(run, snapshot)
        self.snapshots.append(snapshot)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="crowdlearn-model-")
        whole = False
        try:
            checkpoint.write(Breaking(files.folder(self._folder.name), breaks_at), snapshot, 1000.0, keep=2)
            whole = True
            self._world.happened["checkpoint"] += 1
        except FileError:
            pass
        if whole or checkpoint.latest(files.folder(self._folder.name)) is not None:
            self._require_newest(checkpoint.read(self._folder.name), snapshot if whole else None)

    def _require_true(self, run: Run, snapshot: Snapshot) -> None:
        for shard, part, version in zip(run.shards, run.spec.shards, snapshot.versions, strict=True):
            marks = shard.first_parameters - snapshot.parameters[part.slice]
            assert marks.sum() == version - shard.first_version, "a checkpoint has parameters of another version"

    def _require_newest(self, found: Snapshot, written: Snapshot | None) -> None:
        same = [each for each in self.snapshots if _alike(each, found)]
        assert same, "the newest checkpoint is of no moment"
        assert written is None or _alike(found, written), "the newest checkpoint is not the one written last"

    # --- operators ---

    async def submit(self, operator: Process, past: Snapshot | None = None) -> None:
        """Submits the job anew; the run before is ended."""
        spec = job(next(self._numbers))
        parameters, work, versions = np.zeros(SHARDS * PLACES, np.float32), Work(), (0,) * SHARDS
        if past is not None:
            past = past.continued_by(spec)
            spec, parameters, work, versions = past.spec, past.parameters, past.work, past.versions
        self._books.open(spec, parameters, versions, work)
        chunks = [b"rows"] * spec.train_chunks
        await operator.store.jobs.submit(spec, b"{}", b"metrics", parameters, chunks, [b"held out"], past=past)
        self._world.happened["submitted" if past is None else "submitted from a checkpoint"] += 1

    async def stop(self, operator: Process, run: Run) -> None:
        """Ends a run."""
        await operator.store.jobs.finish(run.spec.run, "stopped")

    async def resume(self, operator: Process) -> None:
        """Lets the newest run go on, with an epoch more."""
        spec: JobSpec = await operator.store.jobs.spec(NAME)
        after = await resume(operator.store, NAME, epochs=spec.epochs + 1)
        self._books.runs[after.run].spec = after
        self._world.happened["resumed"] += 1

    async def sweep(self, aggregator: Process) -> None:
        """Lets go what was replaced."""
        await aggregator.store.jobs.sweep()


def _alike(a: Snapshot, b: Snapshot) -> bool:
    same = a.spec.run == b.spec.run and a.versions == b.versions
    return same and np.array_equal(a.parameters, b.parameters)


class Breaking:
    """A folder in which the writer dies before its write number `breaks_at`, from 0."""

    def __init__(self, folder: Any, breaks_at: int) -> None:
        self._folder, self._left = folder, breaks_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def __str__(self) -> str:
        return str(self._folder)

    def write(self, name: str, data: bytes) -> None:
        """Writes, while it lives."""
        self._left -= 1
        if self._left < 0:
            raise FileError("the writer died")
        self._folder.write(name, data)
