"""Gradients to a job's target at a staleness that is given, or by a crowd that waits for each other. Knows no service.

    python -m benchmarks.replay [--job examples/mnist.py] [--staleness 0,1,5,11,23,46] [--set learning_rate=0.03]
    python -m benchmarks.replay --synchronous 32 --tries 100

The first tells what staleness alone costs: the n-th gradient is computed from the parameters that all but the last S
before it made. The second searches optimizers at random for a crowd without any staleness, whose step is the mean of
so many minibatches, and tells the fewest steps: what no order of the same gradients is likely to beat.
"""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import mean, median

import numpy as np

from benchmarks.trainable import Trainable
from crowdlearn import SGD, Adagrad, Adam, Momentum, job_file, optim
from crowdlearn.codecs import Vector
from crowdlearn.job.hyperparameters import Optimizer
from crowdlearn.replica.batches import Batch, Batches
from crowdlearn.schedule import chunk_of
from crowdlearn.spec import JobSpec

SCORE_GROWTH = 1.025
"""Parameters are scored each time that the gradients have grown by so much; two in a row reach the target."""

PATIENCE = 1.3
"""A setting is given up when a seed needs so many times the steps of the best setting."""


@dataclass(frozen=True)
class Course:
    """How to train: the mean of `width` minibatches a step, from parameters `staleness` steps old."""

    staleness: int = 0
    width: int = 1
    most_steps: int = 3000


def minibatches(trainable: Trainable, spec: JobSpec) -> Iterator[Batch]:
    """The minibatches of one replica that trains alone, in its order, for ever."""
    batches = Batches(spec.batch)
    for ordinal in itertools.count():
        epoch, chunk = chunk_of(spec, ordinal)
        batches.add(ordinal, trainable.chunks[chunk], (spec.training.seed, epoch, chunk))
        while (batch := batches.next()) is not None:
            yield batch


def steps_to_target(trainable: Trainable, optimizer: Optimizer, seed: int, course: Course) -> int | None:
    """Steps until two scorings in a row reach the target; None if that takes more than `course.most_steps`."""
    spec = trainable.with_policy(optimizer, trainable.job.downpour, seed)
    target, batches = spec.until, minibatches(trainable, spec)
    assert target is not None
    rule, values = optim.build(spec.optimizer), trainable.initial(seed)
    slots = rule.init(values.size)
    past: deque[Vector] = deque([values.copy()], maxlen=course.staleness + 1)
    # Fewer than ten steps reach no target of interest; a wide crowd needs few, so that each of them counts.
    score_at, reached_at = 10, None
    for step in range(1, course.most_steps + 1):
        gradients = (trainable.step(past[0], batch)[1] for batch in itertools.islice(batches, course.width))
        gradient = sum(gradients, np.zeros(values.size, np.float32)) / np.float32(course.width)
        rule.update(gradient, 1, values, slots, step, 1.0)
        past.append(values.copy())
        if step >= score_at:
            score_at = max(step + 1, round(step * SCORE_GROWTH))
            if not target.reached({target.metric: trainable.score(values)}):
                reached_at = None
            elif reached_at is not None:
                return reached_at
            else:
                reached_at = step
    return None


def random_optimizer(random: np.random.Generator) -> Optimizer:
    """Any optimizer with settings from wide ranges, learning rates and accumulators evenly by their logarithm."""

    def evenly(least: float, most: float) -> float:
        return float(np.exp(random.uniform(np.log(least), np.log(most))))

    def one_of(*values: float) -> float:
        return float(random.choice(values))

    optimizer: Optimizer
    match random.choice(["adagrad", "adam", "momentum", "sgd"], p=[0.35, 0.35, 0.2, 0.1]):
        case "adagrad":
            optimizer = Adagrad(learning_rate=evenly(0.005, 0.3), initial_accumulator=evenly(1e-7, 1e-2))
        case "adam":
            b1, b2 = one_of(0, 0.5, 0.8, 0.9), one_of(0.5, 0.9, 0.95, 0.99, 0.999)
            optimizer = Adam(learning_rate=evenly(0.001, 0.1), b1=b1, b2=b2)
        case "momentum":
            optimizer = Momentum(learning_rate=evenly(0.01, 1), momentum=one_of(0.5, 0.8, 0.9, 0.95))
        case _:
            optimizer = SGD(learning_rate=evenly(0.03, 3))
    return replace(optimizer, warmup_steps=int(one_of(0, 0, 3, 8)), clip_norm=one_of(0, 0.3, 1, 3) or None)


def search(trainable: Trainable, course: Course, seeds: int, tries: int, random: np.random.Generator) -> None:
    """Prints each setting of a random search that is the best so far."""
    best = float(course.most_steps)
    for tried in range(1, tries + 1):
        optimizer, steps = random_optimizer(random), list[int]()
        limited = Course(course.staleness, course.width, min(course.most_steps, round(PATIENCE * best) + 2))
        for seed in range(seeds):
            taken = steps_to_target(trainable, optimizer, seed, limited)
            if taken is None:
                break
            steps.append(taken)
        if len(steps) == seeds and mean(steps) < best:
            best = mean(steps)
            print(f"try {tried}: {best:.1f} steps {steps} {optimizer}", flush=True)


def main() -> None:
    """Prints gradients to the target by staleness, or the course of a search."""
    from benchmarks.learning import with_settings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="examples/mnist.py")
    parser.add_argument("--staleness", default="0,1,5,11,23,46")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the optimizer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000, help="at most, for a run")
    parser.add_argument("--synchronous", type=int, metavar="REPLICAS", help="searches, for a crowd of so many")
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--search-seed", type=int, default=0)
    given = parser.parse_args()
    trainable = Trainable(with_settings(job_file.load(given.job), given.set))
    if given.synchronous:
        course, random = Course(0, given.synchronous, given.steps), np.random.default_rng(given.search_seed)
        search(trainable, course, given.seeds, given.tries, random)
        return
    for staleness in map(int, given.staleness.split(",")):
        course = Course(staleness, 1, given.steps)
        steps = [steps_to_target(trainable, trainable.job.optimizer, seed, course) for seed in range(given.seeds)]
        told = [step for step in steps if step is not None]
        middle = f"{median(told):,.0f} gradients" if len(told) == len(steps) else "not reached by all"
        print(f"staleness {staleness}: {middle} {steps}", flush=True)


if __name__ == "__main__":
    main()
