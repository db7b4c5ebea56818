"""Weighs a gradient by how far others have overtaken it."""

from __future__ import annotations

from crowdlearn.spec import StalenessSpec


def weigh(staleness: int, spec: StalenessSpec) -> float | None:
    """Returns the factor for the step of a gradient, or None when it is too stale to use.

    1 up to `spec.expected`, then expected / staleness (Zhang et al. 2016, "Staleness-aware async-SGD", relative to the
    expected staleness instead of to 1), and nothing beyond `spec.limit`. It scales the step and not the gradient,
    because adaptive optimizers cancel a constant scaling of the gradient.
    """
    if staleness > spec.limit:
        return None
    if staleness <= spec.expected:
        return 1.0
    return spec.expected / staleness
