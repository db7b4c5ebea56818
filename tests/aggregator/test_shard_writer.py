"""What one gradient does to a shard."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from crowdlearn import codecs
from crowdlearn.frames import HEADER_BYTES, Frame, Kind, pack
from crowdlearn.spec import OptimizerSpec
from crowdlearn.store import Applied, StreamEntry
from services.aggregator.shard_writer import Outcome, ShardWriter
from tests.aggregator.conftest import OTHER, PLAIN_SGD, REPLICA, entry, fresh, gradient, job, ones

REMEMBER_SECONDS = 60.0


def writer(version: int = 0, forgotten: int = 0, optimizer: OptimizerSpec = PLAIN_SGD) -> ShardWriter:
    """Shard 0 of a job with plain SGD, learning rate 1, all zeros, at some version."""
    from dataclasses import replace

    state = fresh(job(optimizer))
    state.manifest = replace(state.manifest, version=version, forgotten=forgotten)
    return ShardWriter(job(optimizer), 0, state, REMEMBER_SECONDS)


def outcome(of: ShardWriter, frame: bytes, replica: str = REPLICA, milliseconds: int = 200_000) -> Outcome:
    """The outcome of one entry."""
    (only,) = of.absorb([entry(frame, milliseconds, replica=replica)]).outcomes
    return only


def test_a_gradient_makes_a_step_and_a_version() -> None:
    shard = writer()
    assert outcome(shard, gradient(ones(1024, 3.0))) == Outcome.APPLIED
    commit = shard.take()
    assert commit.parameters.tolist() == [-3.0] * 1024
    assert (commit.version, commit.offset) == (1, "200000-0")
    assert commit.applied == {REPLICA: Applied(1, 200_000)}


def test_a_repeated_gradient_has_no_effect() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024), sequence=1))
    assert outcome(shard, gradient(ones(1024), sequence=1)) == Outcome.DUPLICATE
    assert (shard.version, shard.take().parameters[0]) == (1, -1.0)


def test_an_earlier_sequence_number_after_a_later_one_has_no_effect() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024), sequence=7))
    assert outcome(shard, gradient(ones(1024), sequence=6)) == Outcome.DUPLICATE
    assert shard.take().applied[REPLICA].sequence == 7


def test_replicas_count_their_gradients_apart() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024), sequence=5))
    assert outcome(shard, gradient(ones(1024), sequence=5), replica=OTHER) == Outcome.APPLIED


def test_a_gradient_as_stale_as_expected_makes_a_full_step() -> None:
    shard = writer(version=4)
    outcome(shard, gradient(ones(1024), version=0))
    assert shard.take().parameters[0] == -1.0


def test_a_stale_gradient_is_damped_not_dropped() -> None:
    shard = writer(version=8)
    assert outcome(shard, gradient(ones(1024), version=0)) == Outcome.APPLIED
    # expected / staleness = 4 / 8.
    assert shard.take().parameters[0] == -0.5


def test_a_gradient_beyond_the_limit_is_dropped_and_its_number_used_up() -> None:
    shard = writer(version=9)
    assert outcome(shard, gradient(ones(1024), version=0, sequence=3)) == Outcome.STALE
    commit = shard.take()
    assert (commit.version, commit.parameters[0], commit.applied[REPLICA].sequence) == (9, 0.0, 3)


def test_a_gradient_from_a_version_that_was_lost_makes_a_full_step() -> None:
    shard = writer(version=2)
    assert outcome(shard, gradient(ones(1024), version=50)) == Outcome.APPLIED
    assert shard.take().parameters[0] == -1.0


def test_a_nan_never_reaches_the_parameters() -> None:
    frame = bytearray(gradient(ones(1024)))
    frame[HEADER_BYTES : HEADER_BYTES + 4] = np.float32("nan").tobytes()
    shard = writer()
    assert outcome(shard, bytes(frame)) == Outcome.NOT_FINITE
    assert shard.take().parameters.tolist() == [0.0] * 1024


def test_bytes_that_overflow_do_not_end_a_job() -> None:
    shard = writer(optimizer=OptimizerSpec(name="sgd", clip_norm=1.0))
    payload = np.full(1, codecs.INT8_MAX_SCALE, "<f4").tobytes() + b"\x80" * 1024
    made_up = Frame(Kind.GRADIENT, codecs.INT8.number, 0, 1024, 1, 0, 1.0, 10, 1, payload)
    assert outcome(shard, pack(made_up)) == Outcome.NOT_FINITE
    assert shard.take().version == 0
    assert not shard.diverged


def test_large_but_finite_parameters_are_committed() -> None:
    shard = writer()
    # Their squares overflow float32, they do not.
    outcome(shard, gradient(ones(1024, 3e38)))
    commit = shard.take()
    assert not shard.diverged
    assert (commit.version, commit.parameters[0]) == (1, np.float32(-3e38))


def test_parameters_that_overflow_are_not_committed() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024, 3e38)), milliseconds=200_000)
    first = shard.take()
    assert outcome(shard, gradient(ones(1024, 3e38), sequence=2), milliseconds=200_001) == Outcome.APPLIED
    second = shard.take()
    assert shard.diverged
    # The offset and the sequence number move, so that the stream is trimmed; the values do not.
    assert (second.manifest.blob, second.version, second.offset) == (first.manifest.blob, 1, "200001-0")
    assert second.applied[REPLICA].sequence == 2


def test_slots_that_overflow_are_not_committed() -> None:
    adagrad = OptimizerSpec(name="adagrad", clip_norm=None)
    shard = ShardWriter(job(adagrad), 0, fresh(job(adagrad)), REMEMBER_SECONDS)
    # Its square is over 3.4e38, and the step is 1e20 / inf = 0: the parameters never move again.
    outcome(shard, gradient(ones(1024, 1e20)))
    commit = shard.take()
    assert (shard.diverged, commit.version, commit.parameters[0]) == (True, 0, 0.0)


def test_a_shard_that_has_diverged_passes_everything_over() -> None:
    shard = writer()
    for sequence in (1, 2):
        outcome(shard, gradient(ones(1024, 3e38), sequence=sequence))
    shard.take()
    assert outcome(shard, gradient(ones(1024), sequence=3)) == Outcome.DIVERGED
    assert outcome(shard, gradient(ones(1024), sequence=3)) == Outcome.DUPLICATE
    assert shard.take().version == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"short",
        gradient(ones(1024))[:-1],
        gradient(ones(1023)),
        gradient(ones(1024), shard=1),
        gradient(ones(1024), sequence=0),
        gradient(ones(1024), minibatches=0),
        pack(Frame(Kind.GRADIENT, 9, 0, 1024, 1, 0, 0.0, 1, 1, bytes(4096))),
        pack(Frame(Kind.PARAMETERS, 0, 0, 1024, 1, 0, 0.0, 1, 1, bytes(4096))),
    ],
)
def test_what_is_no_gradient_of_the_shard_is_passed_over(frame: bytes) -> None:
    shard = writer()
    assert outcome(shard, frame) == Outcome.MALFORMED
    assert (shard.version, shard.offset) == (0, "200000-0")


def test_an_entry_without_a_replica_id_is_passed_over() -> None:
    assert outcome(writer(), gradient(ones(1024)), replica="nobody") == Outcome.MALFORMED


def test_a_silent_replica_is_forgotten_by_the_time_of_the_stream() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024)), replica=REPLICA, milliseconds=200_000)
    shard.take()
    # 60,001 ms later, with 60 s to remember.
    outcome(shard, gradient(ones(1024)), replica=OTHER, milliseconds=260_001)
    commit = shard.take()
    assert commit.forget == [REPLICA]
    assert commit.forgotten == 100
    assert commit.applied == {OTHER: Applied(1, 260_001)}


def test_a_replica_that_repeats_itself_is_not_silent() -> None:
    shard = writer()
    for milliseconds in (200_000, 250_000, 300_000):
        shard.absorb([entry(gradient(ones(1024)), milliseconds)])
    assert (shard.version, shard.take().forget) == (1, [])


def test_a_replica_that_ends_its_own_silence_is_not_forgotten() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024)), milliseconds=200_000)
    # 60,001 ms later, with 60 s to remember: the gateway knew of nobody who was forgotten, and told it `accepted`.
    assert outcome(shard, gradient(ones(1024), sequence=2), milliseconds=260_001) == Outcome.APPLIED
    assert outcome(shard, gradient(ones(1024), sequence=2), milliseconds=260_002) == Outcome.DUPLICATE
    commit = shard.take()
    assert (commit.version, commit.forget, commit.forgotten) == (2, [], 0)


def test_an_entry_that_forgets_another_is_not_refused_for_it() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024)), replica=OTHER, milliseconds=200_000)
    # OTHER was born at 101 s, REPLICA at 100 s.
    assert outcome(shard, gradient(ones(1024)), replica=REPLICA, milliseconds=260_001) == Outcome.APPLIED
    commit = shard.take()
    assert (commit.forget, commit.forgotten) == ([OTHER], 101)


def test_a_forgotten_replica_is_refused_and_not_applied_again() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024)), replica=REPLICA, milliseconds=200_000)
    outcome(shard, gradient(ones(1024)), replica=OTHER, milliseconds=260_001)
    assert outcome(shard, gradient(ones(1024), sequence=2), replica=REPLICA, milliseconds=260_002) == Outcome.EXPIRED
    assert shard.version == 2


def test_a_replay_in_two_halves_forgets_the_same() -> None:
    entries = [
        entry(gradient(ones(1024)), 200_000, replica=OTHER),
        entry(gradient(ones(1024)), 260_001, replica=REPLICA),
        entry(gradient(ones(1024), sequence=2), 260_002, replica=OTHER),
    ]
    whole = writer()
    whole.absorb(entries)
    for cut in (1, 2):
        first = writer()
        first.absorb(entries[:cut])
        commit = first.take()
        state = fresh(job())
        state.manifest, state.parameters, state.applied = commit.manifest, commit.parameters, dict(commit.applied)
        second = ShardWriter(job(), 0, state, REMEMBER_SECONDS)
        second.absorb(entries[cut:])
        assert (second.version, second.take().forgotten) == (2, 101)
    assert (whole.version, whole.take().forgotten) == (2, 101)


def test_a_replica_born_after_the_forgotten_ones_is_welcome() -> None:
    shard = writer(forgotten=100)
    assert outcome(shard, gradient(ones(1024)), replica=REPLICA) == Outcome.EXPIRED
    assert outcome(shard, gradient(ones(1024)), replica=OTHER) == Outcome.APPLIED


def test_more_replicas_than_fit_are_forgotten_from_the_longest_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.aggregator.remembered.MAX_REPLICAS", 2)
    shard = writer()
    for number, birth in enumerate((110, 120, 130, 140)):
        shard.absorb([entry(gradient(ones(1024)), 200_000, number, f"{birth:08x}00000000")])
    commit = shard.take()
    # Two of the four fit.
    assert (commit.forget, commit.forgotten) == ([f"{110:08x}00000000", f"{120:08x}00000000"], 120)


def test_a_commit_holds_only_what_changed_since_the_last() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024)))
    first = shard.take()
    outcome(shard, gradient(ones(1024)), replica=OTHER)
    second = shard.take()
    assert second.base == first.manifest
    assert list(second.applied) == [OTHER]


def test_a_commit_does_not_change_while_the_shard_goes_on() -> None:
    shard = writer()
    outcome(shard, gradient(ones(1024), sequence=1))
    commit = shard.take()
    outcome(shard, gradient(ones(1024), sequence=2))
    assert commit.parameters[0] == -1.0


def test_the_staleness_and_the_loss_of_applied_gradients_are_told() -> None:
    absorbed = writer(version=5).absorb([entry(gradient(ones(1024), version=2, loss=0.5, minibatches=3))])
    assert (absorbed.staleness, absorbed.losses) == ([3], [(0.5, 3)])


def counted(of: ShardWriter, frame: bytes, rows: str, number: int = 0) -> dict[str, int]:
    """What the ledger of the next commit changes by one entry."""
    of.absorb([StreamEntry(f"200000-{number}", REPLICA, frame, rows)])
    return dict(of.take().ledger)


def test_an_applied_gradient_counts_its_rows_once() -> None:
    shard = writer()
    assert counted(shard, gradient(ones(1024)), "3.0:4 4.1:1") == {"3.0": 4, "4.1": 1}
    assert counted(shard, gradient(ones(1024)), "3.0:4 4.1:1", 1) == {}
    assert counted(shard, gradient(ones(1024), sequence=2), "3.0:1", 2) == {"3.0": 5}


def test_a_gradient_of_more_rows_than_are_left_of_its_lease_has_no_effect() -> None:
    shard = writer()
    # The chunk of lease 3 has 5 rows.
    assert counted(shard, gradient(ones(1024)), "3.0:4") == {"3.0": 4}
    twice = StreamEntry("200000-1", REPLICA, gradient(ones(1024), sequence=2), "3.0:4")
    assert shard.absorb([twice]).outcomes == {Outcome.UNLEASED: 1}
    assert (shard.version, shard.take().ledger) == (1, {})


def test_a_gradient_that_is_dropped_counts_no_rows() -> None:
    assert counted(writer(version=9), gradient(ones(1024), version=0), "3.0:5") == {}
    assert counted(writer(), b"noise", "3.0:5") == {}


def test_rows_without_a_gradient_count_and_move_no_version() -> None:
    shard = writer()
    assert counted(shard, b"", "3.0:5") == {"3.0": 5}
    assert shard.version == 0


def test_an_entry_that_names_no_rows_counts_none() -> None:
    assert counted(writer(), gradient(ones(1024)), "") == {}


def test_three_huge_gradients_do_not_end_a_job_that_clips_nothing() -> None:
    shard = writer()
    for sequence in range(1, 10):
        assert outcome(shard, gradient(ones(1024), sequence=sequence, version=sequence - 1)) == Outcome.APPLIED
    for sequence in (10, 11, 12):
        frame = gradient(ones(1024, 3e38), sequence=sequence, version=9)
        assert outcome(shard, frame, OTHER, milliseconds=200_000 + sequence) == Outcome.HUGE
    commit = shard.take()
    assert (shard.diverged, commit.version, commit.parameters[0]) == (False, 9, -9.0)
    assert outcome(shard, gradient(ones(1024), sequence=13, version=9), milliseconds=200_100) == Outcome.APPLIED


def unclipped() -> ShardWriter:
    """Shard 0 of a job that clips nothing, and whose first gradient is of norm 32, as ones are."""
    spec = msgspec.structs.replace(job(), initial_norms=(32.0, 32.0, 32.0))
    return ShardWriter(spec, 0, fresh(spec), REMEMBER_SECONDS)


def test_the_first_gradients_of_all_may_be_huge_and_end_nothing() -> None:
    shard = unclipped()
    for sequence in range(1, 31):
        assert outcome(shard, gradient(ones(1024, 1e30), sequence=sequence)) == Outcome.HUGE
    assert outcome(shard, gradient(ones(1024)), OTHER) == Outcome.APPLIED
    assert outcome(shard, gradient(ones(1024, 1e30), sequence=31)) == Outcome.HUGE
    commit = shard.take()
    assert (shard.diverged, commit.version, commit.parameters[0]) == (False, 1, -1.0)


def test_a_model_that_one_replica_trains_alone_diverges_at_once() -> None:
    shard = unclipped()
    assert outcome(shard, gradient(ones(1024))) == Outcome.APPLIED
    for step in range(1, 16):
        frame = gradient(ones(1024, min(800.0**step, 3e38)), sequence=step + 1, version=step)
        assert outcome(shard, frame) == Outcome.APPLIED
    shard.take()
    assert shard.diverged


def test_one_whom_the_others_have_left_trains_alone_after_a_minute() -> None:
    shard = unclipped()
    assert outcome(shard, gradient(ones(1024)), OTHER, milliseconds=200_000) == Outcome.APPLIED
    huge = [gradient(ones(1024, 1e6), sequence=sequence) for sequence in (1, 2)]
    assert outcome(shard, huge[0], milliseconds=259_000) == Outcome.HUGE
    assert outcome(shard, huge[1], milliseconds=261_000) == Outcome.APPLIED


def test_in_a_crowd_a_gradient_at_the_clip_bound_weighs_no_more_than_others() -> None:
    rule = OptimizerSpec(name="sgd", learning_rate=1, clip_norm=1000.0)
    shard = writer(optimizer=rule)
    replicas = [f"67414f80{n:08x}" for n in range(9)]
    for step, replica in enumerate(replicas):
        assert outcome(shard, gradient(ones(1024), sequence=1, version=step), replica) == Outcome.APPLIED
    # As large as others', as a sum of four minibatches, and far larger. What four have in common is not known: as
    # noise they are together twice as large as one.
    for value, minibatches in ((1.0, 1), (2.0, 4), (4.0, 4), (-10.0, 1), (-20.0, 4)):
        frame = gradient(ones(1024, value), sequence=shard.version, version=shard.version, minibatches=minibatches)
        before = shard.take().parameters[0]
        assert outcome(shard, frame, replicas[0]) == Outcome.APPLIED
        assert shard.take().parameters[0] - before == pytest.approx(-math.sqrt(minibatches) * np.sign(value))


def test_where_all_push_sums_a_sum_is_clipped_to_what_is_usual_of_them() -> None:
    shard = writer(optimizer=OptimizerSpec(name="sgd", learning_rate=1, clip_norm=1000.0))
    replicas = [f"67414f80{n:08x}" for n in range(9)]
    for step, replica in enumerate(replicas * 2):
        frame = gradient(ones(1024, 4.0), sequence=step + 1, version=step, minibatches=4)
        before = shard.take().parameters[0]
        assert outcome(shard, frame, replica) == Outcome.APPLIED
        assert shard.take().parameters[0] - before == pytest.approx(-4)
