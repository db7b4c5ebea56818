"""Each optimizer against numbers worked out by hand and against its textbook loop in float64."""

from __future__ import annotations

import numpy as np
import pytest

from crowdlearn.optim import build, weigh
from crowdlearn.optim.transforms import BLOCK
from crowdlearn.spec import OptimizerName, OptimizerSpec, StalenessSpec

NAMES: list[OptimizerName] = ["sgd", "momentum", "rmsprop", "adagrad", "adam"]
OPEN = {"clip_norm": None, "clip_value": None}


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def run(
    spec: OptimizerSpec, start: np.ndarray, gradients: list[np.ndarray], *, minibatches: int = 1, weight: float = 1.0
):
    optimizer = build(spec)
    parameters, slots = start.copy(), optimizer.init(start.size)
    for step, gradient in enumerate(gradients, 1):
        optimizer.update(gradient.copy(), minibatches, parameters, slots, step, weight)
    return parameters


def textbook(spec: OptimizerSpec, w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    w = w.astype(float)
    v, m, s = np.zeros_like(w), np.zeros_like(w), np.full_like(w, spec.initial_accumulator)
    for t, g in enumerate((g.astype(float) for g in gradients), 1):
        match spec.name:
            case "sgd":
                w = w - spec.learning_rate * g
            case "momentum":
                v = spec.momentum * v + g
                w = w - spec.learning_rate * v
            case "rmsprop":
                v = spec.decay * v + (1 - spec.decay) * g**2
                w = w - spec.learning_rate * g / (np.sqrt(v) + spec.epsilon)
            case "adagrad":
                s = s + g**2
                w = w - spec.learning_rate * g / (np.sqrt(s) + spec.epsilon)
            case "adam":
                m = spec.b1 * m + (1 - spec.b1) * g
                v = spec.b2 * v + (1 - spec.b2) * g**2
                m_hat, v_hat = m / (1 - spec.b1**t), v / (1 - spec.b2**t)
                w = w - spec.learning_rate * m_hat / (np.sqrt(v_hat) + spec.epsilon)
    return w


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_follows_its_textbook_loop_across_blocks(name: OptimizerName) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=BLOCK + 17).astype(np.float32)
    gradients = [rng.normal(size=start.size).astype(np.float32) for _ in range(20)]
    spec = OptimizerSpec(name=name, learning_rate=0.01, **OPEN)
    np.testing.assert_allclose(run(spec, start, gradients), textbook(spec, start, gradients), rtol=0, atol=2e-5)


def test_sgd_subtracts_the_rate_times_the_gradient() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=0.5, **OPEN)
    assert run(spec, vector(1, 2), [vector(2, -4)]).tolist() == [0, 4]


def test_sgd_of_integers_at_rate_1_is_exact() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=1, **OPEN)
    assert run(spec, vector(0), [vector(k) for k in range(1000)]).tolist() == [-499_500]


def test_a_seeded_adagrad_does_not_take_its_first_step_by_sign_alone() -> None:
    spec = OptimizerSpec(learning_rate=1, initial_accumulator=0.21, epsilon=0, **OPEN)
    # 0.2 / sqrt(0.21 + 0.04) = 0.4 and 2 / sqrt(0.21 + 4) = 0.97474
    np.testing.assert_allclose(run(spec, vector(0, 0), [vector(0.2, 2)]), [-0.4, -0.97474], rtol=1e-5)


def test_a_sum_over_four_minibatches_moves_adagrad_twice_as_far() -> None:
    spec = OptimizerSpec(learning_rate=1, initial_accumulator=0, epsilon=0, **OPEN)
    # one minibatch: 3 / sqrt(9) = 1; the sum of four: 12 / sqrt(144 / 4) = 2
    assert run(spec, vector(0), [vector(3)]).tolist() == [-1]
    assert run(spec, vector(0), [vector(12)], minibatches=4).tolist() == [-2]


def test_warm_up_raises_the_rate_linearly() -> None:
    optimizer = build(OptimizerSpec(name="sgd", learning_rate=1, warmup_steps=4))
    assert [optimizer.learning_rate(step) for step in (1, 2, 4, 5)] == [0.25, 0.5, 1, 1]


def test_clipping_by_value_counts_a_minibatch() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=1, clip_value=1, clip_norm=None)
    assert run(spec, vector(0, 0, 0), [vector(5, -5, 1.5)], minibatches=2).tolist() == [-2, 2, -1.5]


def test_clipping_by_norm_keeps_the_direction() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=1, clip_norm=5)
    assert run(spec, vector(0, 0), [vector(30, 40)]).tolist() == [-3, -4]
    assert run(spec, vector(0, 0), [vector(3, 4)]).tolist() == [-3, -4]


def test_a_gradient_whose_squares_overflow_float32_is_clipped_like_any_other() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=1, clip_norm=5)
    assert run(spec, vector(0, 0), [vector(1.5e38, -2e38)]).tolist() == pytest.approx([-3, 4])


def test_weight_decay_pulls_towards_zero_once_a_minibatch() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=1, weight_decay=0.125, **OPEN)
    assert run(spec, vector(8), [vector(0)], minibatches=3).tolist() == [5]


def test_a_stale_gradient_is_damped_on_the_step_even_by_adagrad() -> None:
    spec = OptimizerSpec(learning_rate=1, initial_accumulator=0, epsilon=0, **OPEN)
    assert run(spec, vector(0), [vector(4)], weight=0.25).tolist() == [-0.25]


def test_staleness_is_full_then_damped_then_dropped() -> None:
    spec = StalenessSpec(expected=10, limit=40)
    assert [weigh(s, spec) for s in (0, 10, 20, 40, 41)] == [1, 1, 0.5, 0.25, None]
