"""Chains clipping, weight decay and a rule into one (init, update) pair, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crowdlearn.codecs import Vector
from crowdlearn.optim import transforms
from crowdlearn.optim.rules import RULES, Rule
from crowdlearn.optim.transforms import BLOCK
from crowdlearn.spec import OptimizerSpec


@dataclass(frozen=True)
class Optimizer:
    """An optimizer for one shard. Holds no state: parameters and slots belong to the caller."""

    spec: OptimizerSpec
    rule: Rule

    @property
    def slots(self) -> int:
        """How many float32 arrays of the shard's size the rule keeps."""
        return len(self.rule.initial)

    def init(self, size: int) -> list[Vector]:
        """The slots of a shard of `size` values before its first gradient."""
        return [np.full(size, value, np.float32) for value in self.rule.initial]

    def learning_rate(self, step: int) -> float:
        """The learning rate of the `step`-th gradient of the shard, counted from 1."""
        warmup = self.spec.warmup_steps
        return self.spec.learning_rate * (min(1.0, step / warmup) if warmup else 1.0)

    def update(
        self,
        gradient: Vector,
        minibatches: int,
        parameters: Vector,
        slots: list[Vector],
        step: int,
        weight: float,
        bound: float = math.inf,
    ) -> float:
        """Applies one gradient, in place. Returns a minibatch's norm, at most `clip_norm`; 0 where nothing clips.

        Args:
            gradient: float32, the sum over `minibatches` minibatches; overwritten.
            minibatches: how many minibatches are summed in it; thresholds and decay count a minibatch.
            parameters: float32, the shard.
            slots: what `init` gave, or what was loaded.
            step: which gradient of the shard this is, counted from 1.
            weight: scales the step: the staleness factor of `weigh`.
            bound: the norm of a minibatch's part is clipped to this too.
        """
        spec = self.spec
        if spec.clip_value is not None:
            transforms.clip_value(gradient, spec.clip_value * minibatches)
        most = math.inf if spec.clip_norm is None else spec.clip_norm * minibatches
        limit = min(most, bound * minibatches)
        length = transforms.norm(gradient) if spec.clips else 0.0
        scale = 1.0 if length <= limit else limit / length
        rate = self.learning_rate(step) * weight
        scratch = np.empty(min(BLOCK, gradient.size), np.float32)
        for start in range(0, gradient.size, BLOCK):
            block = slice(start, start + BLOCK)
            g, w = gradient[block], parameters[block]
            tmp = scratch[: g.size]
            if scale != 1.0:
                g *= np.float32(scale)
            if spec.weight_decay:
                transforms.add_weight_decay(g, w, spec.weight_decay * minibatches, tmp)
            self.rule.apply(g, minibatches, w, [slot[block] for slot in slots], rate, step, tmp)
        return min(length, most) / minibatches


def build(spec: OptimizerSpec) -> Optimizer:
    """The optimizer that `spec` describes."""
    return Optimizer(spec, RULES[spec.name](spec))
