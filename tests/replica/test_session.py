"""What a Python replica says, message by message: the twin of web_worker/test/session.test.ts. No socket, no JAX."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from crowdlearn import protocol
from crowdlearn.errors import FrameError, NotFiniteError
from crowdlearn.frames import Frame, Kind, pack, unpack
from crowdlearn.protocol import (
    Ack,
    BatchArray,
    BatchLayout,
    Dropped,
    ErrorMessage,
    Fetch,
    Finished,
    Grant,
    Lease,
    Leased,
    Message,
    ParameterArray,
    Release,
    ReplicaTraining,
    Shard,
    Trained,
    Useless,
    Wait,
    Welcome,
)  # fmt: skip
from crowdlearn.replica.actions import Action, End, Prepare, Reconnect, Say, SendFrame
from crowdlearn.replica.batches import read_chunk
from crowdlearn.replica.session import Session

TRAINING = ReplicaTraining(
    n_push=1, n_fetch=1, local_learning_rate=0.5, max_accumulate=3, max_ahead=2,
    push_codec="f32", fetch_codec="f32", seed=0,
)  # fmt: skip
WELCOME = Welcome(
    job="digits", run="3f0c5a9d2b11", replica="67414f80a1b2c3d4", state="running", program="/p",
    parameters=(ParameterArray("w", (3,), 0),), shards=(Shard(0, 2), Shard(2, 1)),
    batch=BatchLayout(2, (BatchArray("x", "float32", ()),)), training=TRAINING,
    applied=[0, 0], credit=1, max_frame_bytes=1 << 20, features=["dropped", "wide"],
)  # fmt: skip


class Stage:
    """A session with a clock, and what it wants done."""

    def __init__(self) -> None:
        self.session = Session("jax cpu", np.random.default_rng(0))
        self.now = 0.0
        self.actions: list[Action] = []

    def tell(self, message: Message) -> Stage:
        self.actions += self.session.receive_text(protocol.encode(message), self.now)
        return self

    def welcome(self, **changes: Any) -> Stage:
        return self.tell(msgspec.structs.replace(WELCOME, **changes))

    def parameters(self, shard: int, version: int, *values: float) -> Stage:
        payload = np.array(values, "<f4").tobytes()
        frame = Frame(Kind.PARAMETERS, 0, shard, len(values), 0, version, 0.0, 0, 0, payload)
        self.session.receive_frame(pack(frame))
        return self

    def chunk(self, lease: int, rows: int) -> Stage:
        grant = Grant(lease, 0, 0, rows, 60.0)
        self.tell(Leased(leases=[grant]))
        self.session.chunk_loaded(WELCOME.run, grant, read_chunk(bytes(4 * rows), rows, WELCOME.batch))
        return self

    def step(self, *gradient: float, loss: float = 1.0) -> bool:
        """Trains one minibatch; False when there is none to train."""
        batch, actions = self.session.next(self.now)
        self.actions += actions
        if batch is not None:
            assert self.session.training is not None
            values = np.array(gradient or (1, 2, 3), np.float32)
            self.actions += self.session.training.stepped(batch, loss, values, self.now)
        return batch is not None

    def ack(self, shard: int, sequence: int, status: Any = "accepted", **more: Any) -> Stage:
        return self.tell(Ack(shard=shard, sequence=sequence, status=status, **more))

    def tick(self, at: float) -> Stage:
        self.now = at
        self.actions += self.session.tick(at)
        return self

    def said(self) -> list[Message]:
        return [action.message for action in self.actions if isinstance(action, Say)]

    def frames(self) -> list[Frame]:
        return [unpack(action.data) for action in self.actions if isinstance(action, SendFrame)]

    def clear(self) -> Stage:
        self.actions = []
        return self


def ready(rows: int = 20, **changes: Any) -> Stage:
    """A session that can train: welcome, program, parameters at versions 4 and 7, and a chunk of `rows` rows."""
    stage = Stage().welcome(**changes)
    stage.session.prepared(WELCOME.run)
    return stage.parameters(0, 4, 10, 20).parameters(1, 7, 30).chunk(1, rows).clear()


def with_training(**changes: Any) -> ReplicaTraining:
    return msgspec.structs.replace(TRAINING, **changes)


def sent(stage: Stage) -> list[tuple[int, int]]:
    return [(frame.shard, frame.sequence) for frame in stage.frames()]


def test_a_new_replica_says_hello_with_nothing_a_known_one_with_its_identity() -> None:
    stage = Stage()
    assert (stage.session.hello().replica, stage.session.hello().run) == (None, None)
    stage.welcome()
    assert (stage.session.hello().replica, stage.session.hello().run) == (WELCOME.replica, WELCOME.run)


def test_after_the_welcome_it_prepares_fetches_every_shard_and_asks_for_two_chunks() -> None:
    stage = Stage().welcome()
    assert isinstance(stage.actions[0], Prepare)
    assert stage.said() == [Fetch(have=[-1, -1]), Lease(count=2)]


def test_nothing_is_trained_before_program_shards_and_a_chunk_are_there() -> None:
    stage = Stage().welcome()
    assert not stage.step()
    stage.chunk(1, 20).parameters(0, 4, 1, 2)
    assert not stage.step()
    stage.parameters(1, 7, 3)
    assert not stage.step()
    stage.session.prepared(WELCOME.run)
    assert stage.step()


def test_a_gradient_goes_out_as_one_frame_a_shard_with_the_version_it_was_computed_from() -> None:
    stage = ready()
    stage.step(1, 2, 3, loss=2.5)
    frames = stage.frames()
    assert [(f.shard, f.version, f.sequence, f.rows, f.minibatches, f.loss) for f in frames] == [
        (0, 4, 1, 2, 1, 2.5),
        (1, 7, 1, 2, 1, 2.5),
    ]
    assert np.frombuffer(frames[0].payload, "<f4").tolist() == [1, 2]


def values(stage: Stage) -> list[float]:
    assert stage.session.training is not None
    return stage.session.training.parameters.values.tolist()  # type: ignore[no-any-return]


def test_without_knowing_how_far_the_service_moves_there_is_no_local_step() -> None:
    stage = ready(credit=2)
    stage.step(1, 2, 3)
    stage.step(0, 0, 0)
    assert values(stage) == [10, 20, 30]


def test_a_local_step_goes_no_farther_than_the_service_moves_a_shard_for_a_version() -> None:
    stage = ready(rows=40, credit=4, training=with_training(max_ahead=9))
    stage.step(0, 0, 0)
    # Two versions of shard 0, over a distance of 5; shard 1 moves by 0.25 in one.
    stage.parameters(0, 6, 13, 24).parameters(1, 8, 30.25)
    stage.step(30, 40, 0.25)
    stage.step(0, 0, 0)
    # Plain steps would be (15, 20) and 0.125: the first is cut to 2.5, the second is short enough.
    assert values(stage) == [11.5, 22, 30.125]


def test_a_local_step_of_one_minibatch_of_n_push_is_their_part_of_what_the_service_moves() -> None:
    stage = ready(rows=40, credit=4, training=with_training(max_ahead=9, n_push=2))
    stage.step(0, 0, 0)
    stage.parameters(0, 5, 13, 24)
    stage.step(30, 40, 0)
    stage.step(0, 0, 0)
    assert values(stage) == [11.5, 22, 30]


def test_a_local_step_is_clipped_as_the_service_clips() -> None:
    stage = ready(rows=40, credit=4, training=with_training(max_ahead=9, clip_norm=5.0))
    stage.step(0, 0, 0)
    stage.parameters(0, 5, 1010, 20)
    stage.step(3e30, 4e30, 0)
    stage.step(0, 0, 0)
    assert values(stage) == [1008.5, 18, 30]


def test_a_shard_that_is_replaced_before_the_next_minibatch_takes_no_local_step() -> None:
    stage = ready(rows=40, credit=4, training=with_training(max_ahead=9))
    stage.step(0, 0, 0)
    stage.parameters(0, 5, 13, 24).parameters(1, 8, 31)
    stage.step(30, 40, 8)
    stage.parameters(0, 6, 100, 200)
    stage.step(0, 0, 0)
    assert values(stage) == [100, 200, 30]
    assert stage.session.training is not None
    assert stage.session.training.parameters.versions == [6, 8]


def test_parameters_are_adopted_only_every_n_fetch_steps() -> None:
    stage = ready(credit=4, training=with_training(n_fetch=2))
    stage.step(0, 0, 0)
    stage.parameters(0, 5, 100, 200)
    stage.step(0, 0, 0)
    values = stage.session.training.parameters.values  # type: ignore[union-attr]
    assert values[0] == 10
    stage.step(0, 0, 0)
    assert values[0] == 100


def test_n_push_minibatches_are_summed_with_their_rows_and_mean_loss() -> None:
    stage = ready(training=with_training(n_push=2))
    stage.step(1, 2, 3, loss=1.0)
    assert stage.frames() == []
    stage.step(10, 20, 30, loss=2.0)
    first = stage.frames()[0]
    assert (first.minibatches, first.rows, first.loss) == (2, 4, 1.5)
    assert np.frombuffer(first.payload, "<f4").tolist() == [11, 22]


def test_without_credit_nothing_is_computed_until_the_answer_is_here() -> None:
    stage = ready()
    assert [stage.step(), stage.step()] == [True, False]
    stage.ack(0, 1)
    assert not stage.step()
    stage.ack(1, 1)
    assert stage.step()


def test_a_replica_two_gradients_ahead_waits_for_newer_parameters_but_not_over_a_second() -> None:
    stage = ready(credit=9)
    stage.step()
    stage.step()
    stage.ack(0, 1, version=5).ack(0, 2, version=6).ack(1, 1).ack(1, 2)
    assert not stage.step()
    stage.parameters(0, 5, 1, 1)
    assert stage.step()
    assert not stage.step()
    stage.now = 1.0
    assert stage.step()


def test_a_busy_frame_is_sent_again_when_its_time_has_come_and_more_is_summed_meanwhile() -> None:
    stage = ready()
    stage.step()
    stage.clear().ack(0, 1, "busy", retry_seconds=0.25).ack(1, 1)
    assert stage.session.tick_at_seconds == 0.25
    assert [stage.step(), stage.step(), stage.step(), stage.step()] == [True, True, True, False]
    assert sent(stage.tick(0.2)) == []
    assert sent(stage.tick(0.25)) == [(0, 1)]
    stage.clear().ack(0, 1)
    # The three that were summed, in one push.
    assert [(frame.sequence, frame.minibatches) for frame in stage.frames()] == [(2, 3), (2, 3)]


def test_after_a_reconnect_what_is_applied_is_dropped_and_the_rest_is_sent_again_in_order() -> None:
    stage = ready(credit=2)
    stage.step()
    stage.step()
    assert sent(stage) == [(0, 1), (1, 1), (0, 2), (1, 2)]
    stage.clear()
    assert stage.session.closed(1006) == [Reconnect()]
    stage.welcome(credit=2, applied=[1, 0])
    assert sent(stage) == [(0, 2), (1, 1), (1, 2)]


def test_nothing_is_said_between_the_close_and_the_next_welcome() -> None:
    stage = ready(credit=2)
    stage.session.closed(1012)
    stage.clear()
    assert stage.step()
    stage.tick(100.0)
    assert stage.actions == []
    stage.welcome(credit=2)
    assert sent(stage) == [(0, 1), (1, 1)]


def test_under_another_identity_nothing_old_is_sent() -> None:
    stage = ready()
    stage.step()
    stage.session.closed(1006)
    stage.clear().welcome(replica="77414f80a1b2c3d4")
    assert stage.frames() == []


def test_an_expired_identity_starts_anew_with_null() -> None:
    stage = ready()
    stage.step()
    stage.clear().ack(0, 1, "rejected", reason="expired")
    assert stage.actions == [Reconnect()]
    assert stage.session.hello().replica is None


def test_a_lease_is_trained_when_all_its_rows_are_acknowledged_on_every_shard() -> None:
    stage = ready(rows=2).tell(Wait(seconds=1.0))
    stage.step()
    stage.clear().ack(0, 1, "duplicate")
    assert Trained(lease=1) not in stage.said()
    stage.ack(1, 1, "rejected", reason="not-finite")
    assert Trained(lease=1) in stage.said()


def test_the_last_rows_make_a_minibatch_only_when_no_more_chunks_are_free() -> None:
    stage = ready(rows=3)
    stage.step()
    stage.ack(0, 1).ack(1, 1)
    assert not stage.step()
    stage.tell(Wait(seconds=1.0))
    stage.clear()
    assert stage.step()
    assert stage.frames()[0].rows == 1


def test_after_a_wait_it_asks_again_when_told_to() -> None:
    stage = Stage().welcome().tell(Wait(seconds=1.5)).clear()
    assert stage.tick(1.4).said() == []
    assert stage.tick(1.5).said() == [Lease(count=2)]


def test_a_replica_without_work_fetches_no_versions() -> None:
    stage = Stage().welcome().tell(Wait(seconds=60.0))
    stage.session.prepared(WELCOME.run)
    stage.parameters(0, 4, 10, 20).parameters(1, 7, 30).clear()
    assert not stage.step()
    assert stage.said() == []
    stage.chunk(1, 20)
    assert Fetch(have=[4, 7]) in stage.said()


def test_a_wait_for_the_warm_up_is_told_until_there_is_work() -> None:
    stage = Stage().welcome().tell(Wait(seconds=1.5, reason="warmup"))
    assert stage.session.training is not None
    assert stage.session.training.wait_reason == "warmup"
    # The gateway says that it is over.
    stage.clear().tell(Wait(seconds=0.0)).tick(0.0)
    assert stage.said() == [Lease(count=2)]
    assert stage.session.training.wait_reason is None


def test_a_useless_gradient_is_dropped_and_all_is_fetched_anew() -> None:
    stage = ready()
    assert stage.step(1, float("nan"), 3)
    assert stage.frames() == []
    assert Fetch(have=[-1, -1]) in stage.said()


def test_twenty_useless_gradients_in_a_row_end_it() -> None:
    stage = ready(rows=100)
    for _ in range(20):
        stage.parameters(0, 4, 10, 20).parameters(1, 7, 30)
        assert stage.step(loss=float("inf"))
    assert isinstance(stage.actions[-1], End)
    assert stage.actions[-1].state.name == "failed"


def test_who_gives_up_says_so_before_it_leaves() -> None:
    stage = ready(rows=100)
    for _ in range(20):
        assert Useless(minibatches=20) not in stage.said()
        stage.parameters(0, 4, 10, 20).parameters(1, 7, 30)
        stage.step(loss=float("inf"))
    assert stage.actions[-2] == Say(Useless(minibatches=20))


def test_stopping_releases_every_lease_in_messages_of_at_most_64() -> None:
    stage = Stage().welcome()
    stage.tell(Leased(leases=[Grant(lease, 0, 0, 2, 60.0) for lease in range(70)]))
    said = [action.message for action in stage.session.stop() if isinstance(action, Say)]
    assert said == [Release(leases=list(range(64))), Release(leases=list(range(64, 70)))]


def test_a_chunk_that_cannot_be_had_is_released() -> None:
    stage = Stage().welcome()
    grant = Grant(5, 0, 0, 2, 60.0)
    stage.tell(Leased(leases=[grant]))
    assert stage.session.chunk_failed(WELCOME.run, grant, 0.0) == [Say(Release(leases=[5]))]


def test_a_chunk_that_could_not_be_had_without_a_socket_is_given_back_on_the_next() -> None:
    stage = ready()
    grant = Grant(5, 0, 0, 4, 60.0)
    stage.tell(Leased(leases=[grant]))
    stage.session.closed(1006)
    # The lease is the replica's still, and so it is said that it is not trained.
    assert stage.session.hello().leases == [1, 5]
    assert stage.session.chunk_failed(WELCOME.run, grant, 0.0) == []
    assert stage.session.hello().leases == [1]
    assert stage.clear().welcome().said()[0] == Release(leases=[5])


def test_the_end_of_the_job_ends_the_replica() -> None:
    stage = ready().tell(Finished(reason="until"))
    (end,) = stage.actions
    assert isinstance(end, End)
    assert end.state.name == "finished"


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013, 4001, 4006])
def test_a_passing_close_is_answered_by_a_reconnect(code: int) -> None:
    assert ready().session.closed(code) == [Reconnect()]


def test_a_gateway_that_is_busy_at_the_door_says_when_to_come_again() -> None:
    stage = Stage().tell(ErrorMessage(code=1013, message="too many", retry_seconds=3.0))
    assert stage.session.closed(1013) == [Reconnect(3.0)]
    # The next gateway, which says nothing, is not waited for.
    assert stage.session.closed(1006) == [Reconnect()]


@pytest.mark.parametrize("code", [1009, 4000, 4002, 4003, 4004])
def test_a_close_that_trying_again_would_not_mend_ends_the_replica(code: int) -> None:
    (end,) = ready().session.closed(code)
    assert isinstance(end, End)
    assert end.state.name == "failed"


def test_a_model_that_is_a_module_is_refused_before_any_lease() -> None:
    stage = Stage().welcome(model="module")
    (end,) = stage.actions
    assert isinstance(end, End)
    assert "ES module" in end.state.message


def test_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FrameError, match="shard 0 expects 2 values, got 3"):
        Stage().welcome().parameters(0, 1, 1, 2, 3)
    with pytest.raises(NotFiniteError):
        Stage().welcome().parameters(0, 1, 1, float("inf"))


def test_a_minibatch_takes_rows_of_two_chunks_and_says_whose_they_are() -> None:
    stage = ready(rows=3).chunk(2, 3)
    stage.step()
    stage.ack(0, 1).ack(1, 1)
    batch, _ = stage.session.next(0.0)
    assert batch is not None
    assert dict(batch.leases) == {1: 1, 2: 1}


def test_a_sum_that_was_full_while_a_frame_was_busy_goes_out_behind_it_and_grows_no_further() -> None:
    stage = ready(credit=2, rows=40)
    stage.step()
    stage.ack(0, 1, "busy", retry_seconds=0.25).ack(1, 1, "busy", retry_seconds=0.25)
    assert [stage.step() for _ in range(4)] == [True, True, True, False]
    stage.clear().tick(0.3)
    assert [(frame.shard, frame.sequence, frame.minibatches) for frame in stage.frames()] == [
        (0, 1, 1), (1, 1, 1), (0, 2, 3), (1, 2, 3),
    ]  # fmt: skip
    assert not stage.step()


@pytest.mark.parametrize("seed", range(40))
def test_no_frame_sums_more_than_the_most_whatever_is_busy_and_whenever_the_socket_goes(seed: int) -> None:
    random = np.random.default_rng(seed)
    n_push, max_accumulate, credit = (int(random.integers(1, 5)) for _ in range(3))
    changes: dict[str, Any] = {
        "credit": credit, "training": with_training(n_push=n_push, max_accumulate=max_accumulate, n_fetch=2),
    }  # fmt: skip
    stage = ready(rows=400, **changes)
    unanswered: list[tuple[int, int]] = []
    frames: list[Frame] = []
    for _ in range(400):
        event = random.choice(["step", "step", "step", "ack", "busy", "tick", "reconnect"], p=[0.2] * 3 + [0.1] * 4)
        if event == "step":
            stage.step()
        elif event == "tick":
            stage.tick(stage.now + 0.2)
        elif event == "reconnect":
            stage.session.closed(1006)
            unanswered.clear()
            stage.welcome(**changes)
        elif unanswered:
            shard, sequence = unanswered.pop(0)
            stage.ack(shard, sequence, "busy" if event == "busy" else "accepted", retry_seconds=0.3)
        unanswered += sent(stage)
        frames += stage.frames()
        stage.clear()
        for shard in (0, 1):
            assert sum(one == shard for one, _ in unanswered) <= credit
    assert max(frame.minibatches for frame in frames) <= max(n_push, max_accumulate)
    assert max(frame.sequence for frame in frames) > 3


def test_after_a_malformed_frame_it_starts_anew_without_what_was_refused() -> None:
    stage = ready()
    stage.step()
    assert stage.session.closed(4005) == [Reconnect()]
    assert (stage.session.hello().replica, stage.session.hello().run) == (None, None)
    stage.clear().welcome(replica="67414f80ffffffff")
    assert stage.frames() == []
    assert not any(isinstance(action, Prepare) for action in stage.actions)
    stage.parameters(0, 4, 1, 2).parameters(1, 7, 3).chunk(2, 4).step()
    assert sent(stage) == [(0, 1), (1, 1)]


def test_five_malformed_frames_in_a_row_are_forgiven_and_the_sixth_says_what_was_wrong() -> None:
    stage = Stage()
    for _ in range(5):
        assert stage.welcome().session.closed(4005) == [Reconnect()]
    stage.welcome().tell(ErrorMessage(code=4005, message="shard 0 expects 2 values, got 3"))
    (end,) = stage.session.closed(4005)
    assert isinstance(end, End)
    assert (end.state.name, end.state.message) == ("failed", "shard 0 expects 2 values, got 3")


def test_a_gradient_that_is_taken_makes_up_for_the_malformed_ones_before() -> None:
    stage = ready(rows=40)
    for _ in range(4):
        assert stage.session.closed(4005) == [Reconnect()]
        stage.welcome()
    stage.parameters(0, 4, 1, 2).parameters(1, 7, 3).chunk(2, 4).step()
    stage.ack(0, 1)
    for _ in range(5):
        assert stage.session.closed(4005) == [Reconnect()]
        stage.welcome()


def test_a_gradient_that_f16_cannot_hold_goes_as_f32_each_shard_by_itself() -> None:
    stage = ready(rows=40, credit=4, training=with_training(push_codec="f16", max_ahead=9))
    stage.step(100_000, 1, 3)
    stage.step(1, 2, 3)
    stage.step(1, 1e-9, 3)
    assert [(frame.shard, frame.codec) for frame in stage.frames()] == [
        (0, 0), (1, 1), (0, 1), (1, 1), (0, 0), (1, 1),
    ]  # fmt: skip
    assert np.frombuffer(stage.frames()[0].payload, "<f4").tolist() == [100_000, 1]


def test_a_gradient_in_f16_stays_so_where_the_gateway_takes_no_larger_frame() -> None:
    stage = ready(training=with_training(push_codec="f16"), max_frame_bytes=47)
    stage.step(100_000, 1, 3)
    assert [(frame.shard, frame.codec) for frame in stage.frames()] == [(0, 1), (1, 1)]
    assert np.frombuffer(stage.frames()[0].payload, "<f2").tolist() == [65504, 1]


def test_dropped_minibatches_are_told_before_their_lease_is_trained() -> None:
    stage = ready(rows=2)
    stage.step(1, float("nan"), 1)
    assert stage.said()[-3:] == [Dropped(minibatches=1), Trained(lease=1), Fetch(have=[-1, -1])]


def test_a_gateway_of_before_gets_halves_and_hears_of_no_dropped_minibatches() -> None:
    stage = ready(training=with_training(push_codec="f16"), features=[])
    stage.step(100_000, 1, 3)
    assert [frame.codec for frame in stage.frames()] == [1, 1]
    stage.ack(0, 1).ack(1, 1)
    stage.step(1, float("nan"), 1)
    assert [message for message in stage.said() if isinstance(message, Dropped)] == []
    stage.session.closed(1006)
    stage.clear().welcome(training=with_training(push_codec="f16"), features=["dropped", "wide", "of tomorrow"])
    assert Dropped(minibatches=1) in stage.said()


def test_minibatches_dropped_while_the_socket_is_away_are_told_after_the_welcome() -> None:
    stage = ready(rows=4)
    stage.session.closed(1006)
    stage.step(float("inf"), 1, 1)
    stage.clear().welcome()
    assert Dropped(minibatches=1) in stage.said()
    assert Dropped(minibatches=1) not in stage.clear().welcome().said()


def test_a_sum_that_is_not_finite_drops_all_its_minibatches() -> None:
    stage = ready(rows=40, training=with_training(n_push=2))
    stage.step(3e38, 1, 1)
    stage.step(3e38, 1, 1)
    assert stage.frames() == []
    assert [message for message in stage.said() if isinstance(message, Dropped)] == [Dropped(minibatches=2)]
    assert stage.session.counters.dropped == 2


def test_a_replica_that_gives_up_has_told_of_every_minibatch() -> None:
    stage = ready(rows=200)
    for _ in range(20):
        stage.step(1, 1, 1, loss=float("nan"))
        stage.parameters(0, 4, 1, 1).parameters(1, 7, 1)
    dropped = [message.minibatches for message in stage.said() if isinstance(message, Dropped)]
    assert sum(dropped) == 20
    assert stage.said()[-1] == Useless(minibatches=20)
