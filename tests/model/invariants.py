"""What must hold of Redis at every moment, whatever has happened: docs/redis.md, by the numbers of its promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from crowdlearn.errors import FrameError
from crowdlearn.frames import unpack
from crowdlearn.identity import birth_seconds
from crowdlearn.ledger import lease_of
from crowdlearn.schedule import rows_of
from crowdlearn.snapshot import Work
from crowdlearn.store import ShardState, Store, keys, position
from crowdlearn.store.extent import Extent
from tests.model.books import NAME, Books, Gradient, Run, Shard

STAYS = -1
"""What Redis says of the time to live of a key that stays."""


async def require_shard(look: Store, run: Run, index: int) -> None:
    """Promises 1 to 5 of one shard, as whoever loads it sees it."""
    shard, name = run.shards[index], run.spec.run
    state = await look.shards.load(name, index)
    after = await look.streams.read({(name, index): state.manifest.offset}, 1000)
    waits = {
        (entry.replica, sequence): entry.id
        for entry in after.get((name, index), ())
        if (sequence := _sequence(entry.frame)) is not None
    }
    marks = _promise_1_a_version_counts_the_gradients_that_are_in_it(shard, state)
    _promise_2_fence_version_and_offset_only_rise(shard, state)
    work = await look.data.work(name)
    _promise_3_the_ledger_counts_the_rows_of_what_is_applied_once(run, index, state, marks, work)
    _promise_4_a_gradient_is_applied_once_and_only_if_it_was_sent(shard, state, marks)
    _promise_4_what_was_acknowledged_is_applied_or_waits(run, index, state, marks, waits)


def _sequence(frame: bytes) -> int | None:
    try:
        return unpack(frame).sequence
    except FrameError:
        return None


def _promise_1_a_version_counts_the_gradients_that_are_in_it(shard: Shard, state: ShardState) -> np.ndarray:
    marks = shard.first_parameters - state.parameters
    assert set(marks.tolist()) <= {0.0, 1.0}, f"a gradient was applied twice, or something else was: {marks.tolist()}"
    applied = state.manifest.version - shard.first_version
    assert applied == marks.sum(), f"version counts {applied} gradients, the parameters have {marks.sum():.0f}"
    return marks


def _promise_2_fence_version_and_offset_only_rise(shard: Shard, state: ShardState) -> None:
    manifest = state.manifest
    assert manifest.fence >= shard.fence, f"fence {shard.fence} was seen, and then {manifest.fence}"
    assert manifest.version >= shard.version, f"version {shard.version} was seen, and then {manifest.version}"
    offset = position(manifest.offset)
    # A stream that had an id of the future begins anew.
    assert offset >= shard.offset or offset == (0, 0), f"offset {shard.offset} was seen, and then {offset}"
    shard.fence, shard.version, shard.offset = manifest.fence, manifest.version, offset


def _promise_3_the_ledger_counts_the_rows_of_what_is_applied_once(
    run: Run, index: int, state: ShardState, marks: np.ndarray, work: Work
) -> None:
    rows, trained = applied_rows(run, index, marks), trained_leases(run, work)
    over = [grant for grant, count in rows.items() if count > rows_of(run.spec, lease_of(grant))]
    assert not over, f"of {over} more rows are applied than were leased"
    # Those that are trained on all shards leave the ledger, and those that Redis has lost and not given again.
    trained = trained | {lease for lease in map(lease_of, rows) if lease >= work.next}
    wrong = {
        grant: (state.ledger.get(grant, 0), rows[grant])
        for grant in {*rows, *state.ledger}
        if state.ledger.get(grant, 0) != rows[grant] and (grant in state.ledger or lease_of(grant) not in trained)
    }
    assert not wrong, f"what the ledger counts, and what applied gradients have: {wrong}"


def applied_rows(run: Run, index: int, marks: np.ndarray) -> Counter[str]:
    """The rows of each grant that are in applied gradients."""
    sent = run.shards[index].sent.values()
    return Counter(each.grant for each in sent if each.grant and marks[each.place])


def trained_leases(run: Run, work: Work) -> set[int]:
    """The leases that were trained since the run began."""
    before = set(range(run.work.next)) - {*run.work.outstanding}
    return set(range(work.next)) - {*work.outstanding} - before


def is_crowded(run: Run, index: int, gradient: Gradient) -> bool:
    """Whether others name the same rows, of a grant that Redis has lost and given again: then the last are dropped."""
    same = [each for each in run.shards[index].sent.values() if each.grant and each.grant == gradient.grant]
    return bool(same) and len(same) > rows_of(run.spec, lease_of(gradient.grant))


def _promise_4_a_gradient_is_applied_once_and_only_if_it_was_sent(
    shard: Shard, state: ShardState, marks: np.ndarray
) -> None:
    sent = {gradient.place: gradient for gradient in shard.sent.values()}
    strange = [place for place in np.flatnonzero(marks).tolist() if place not in sent]
    assert not strange, f"places {strange} were applied, and nobody sent them"
    for place in np.flatnonzero(marks).tolist():
        assert is_used_up(state, sent[place]), f"{sent[place]} is applied, and would be applied again"


def is_used_up(state: ShardState, gradient: Gradient) -> bool:
    """Whether a repeat of the gradient would have no effect."""
    known = state.applied.get(gradient.replica)
    if known is None:
        return birth_seconds(gradient.replica) <= state.manifest.forgotten
    return known.sequence >= gradient.sequence


def _promise_4_what_was_acknowledged_is_applied_or_waits(
    run: Run, index: int, state: ShardState, marks: np.ndarray, waits: Mapping[tuple[str, int], str]
) -> None:
    for gradient in sorted(run.shards[index].promised, key=lambda gradient: gradient.place):
        if marks[gradient.place] or is_crowded(run, index, gradient):
            continue
        assert (gradient.replica, gradient.sequence) in waits, f"{gradient} was acknowledged, and is nowhere"
        assert not is_used_up(state, gradient), f"{gradient} was acknowledged, and will be taken for a repeat"


async def require_work(look: Store, run: Run) -> None:
    """Promise 3 of the leases: what counts as trained is in applied gradients of every shard, and counts once."""
    work = await look.data.work(run.spec.run)
    trained = trained_leases(run, work)
    assert work.done - run.work.done == len(trained), f"{work.done - run.work.done} leases count, {trained} are trained"
    rows = sum(rows_of(run.spec, lease) for lease in trained)
    assert work.rows - run.work.rows == rows, f"{work.rows - run.work.rows} rows count, {trained} have {rows}"
    whole = await whole_leases(look, run)
    assert trained <= whole, f"leases {sorted(trained - whole)} are trained, and rows of them are not applied"


async def require_booked(look: Store, run: Run) -> None:
    """Of what all shards have applied wholly, all counts."""
    work = await look.data.work(run.spec.run)
    # One that Redis has lost, and not given again, counts when it is.
    whole = {lease for lease in await whole_leases(look, run) if lease < work.next}
    trained = trained_leases(run, work)
    before = set(range(run.work.next)) - {*run.work.outstanding}
    assert whole - before <= trained, f"leases {sorted(whole - before - trained)} are applied wholly, and do not count"


async def whole_leases(look: Store, run: Run) -> set[int]:
    """The leases of which every shard has applied all rows of one grant."""
    whole: list[set[int]] = []
    for index, shard in enumerate(run.shards):
        state = await look.shards.load(run.spec.run, index)
        rows = applied_rows(run, index, shard.first_parameters - state.parameters)
        full = (lease_of(grant) for grant, count in rows.items() if count == rows_of(run.spec, lease_of(grant)))
        whole.append(set(full))
    return set.intersection(*whole)


async def require_best(look: Store, run: Run) -> None:
    """Promise 9: the best is what was scored, and nothing that was counted is better."""
    result = await look.scorings.best(run.spec)
    if result is None:
        assert not run.counted, f"{run.counted} were counted, and none is kept"
        return
    assert result.best is not None
    assert not run.counted or result.best.value >= max(run.counted), "a scoring that is better was counted"
    scored = run.scored.get((result.best.value, tuple(result.versions)), [])
    assert any(np.array_equal(each, result.parameters) for each in scored), "the best was never scored so"


async def require_whole(look: Store, books: Books) -> None:
    """Promise 11: the newest run of the name is there for good, and nothing stays that nobody will clear up."""
    newest = await look.jobs.run_of(NAME)
    names = [name.decode() for name in sorted(await look._connection.call("KEYS", "*"))]
    lives = dict(zip(names, await look._connection.batch([("PTTL", name) for name in names]), strict=True))
    extent = Extent.of(books.runs[newest].spec)
    required = [*extent.leading(), keys.spec(newest), keys.program(newest), *extent.chunks()]
    assert {name: lives.get(name) for name in required if lives.get(name) != STAYS} == {}
    journal = {run.decode() for run in await look._connection.call("HKEYS", keys.LEAVING)}
    of_runs = {name: run for name in names if (run := _run_of(name)) is not None}
    kept = {newest, *journal}
    stays = [name for name, run in of_runs.items() if lives[name] == STAYS and run not in kept]
    stays = [name for name in stays if not _may_stay(name, books.runs[of_runs[name]])]
    assert stays == [], "these keys stay, and nobody will clear them up"
    goes = [name for name, run in of_runs.items() if run == newest and lives[name] != STAYS and not _may_go(name)]
    assert goes == [], "these keys of the newest run go"
    for index in range(extent.shards):
        blob = (await look.shards.manifest(newest, index)).blob
        assert lives[keys.parameters(newest, index, blob)] == lives[keys.slots(newest, index, blob)] == STAYS


def _run_of(name: str) -> str | None:
    tag = name.partition("{")[2].partition("}")[0]
    return tag.partition("/")[0] if tag and tag != keys.JOBS else None


def _may_stay(name: str, run: Run) -> bool:
    # What a commit says last may be ended by an error of the model; nothing of a Redis ends it.
    return name.rpartition("}:")[2].startswith(("parameters:", "slots:")) and run.ended_commits > 0


def _may_go(name: str) -> bool:
    kind = name.rpartition("}:")[2]
    return kind.startswith(("lease", "warmup", "held:", "best:", "parameters:", "slots:")) and kind != "leases"
