"""CrowdLearn: one model, trained on everybody's browsers with Downpour SGD.

A job is written with the names here: see docs/jobs.md. They are loaded when first used, so that services which only
need `crowdlearn.protocol` or `crowdlearn.store` start without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crowdlearn.data import Data
    from crowdlearn.job import SGD, Adagrad, Adam, Downpour, Job, Momentum, Normal, RMSprop, load_weights
    from crowdlearn.program.bounded import bounded_while
    from crowdlearn.replica import Replica
    from crowdlearn.sources import Batches, File, Rows
    from crowdlearn.stream import Stream

__all__ = ["SGD", "Adagrad", "Adam", "Data", "Downpour", "Job", "Momentum", "Normal", "RMSprop"]
__all__ += ["Batches", "File", "Replica", "Rows", "Stream", "bounded_while", "load_weights"]

_ELSEWHERE = {"Data": "crowdlearn.data", "Stream": "crowdlearn.stream", "bounded_while": "crowdlearn.program.bounded"}
_ELSEWHERE |= {"Replica": "crowdlearn.replica"}
_ELSEWHERE |= dict.fromkeys(("Batches", "File", "Rows"), "crowdlearn.sources")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'crowdlearn' has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "crowdlearn.job")), name)
