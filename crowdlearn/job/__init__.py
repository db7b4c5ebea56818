"""A job: what a user writes, and what it is compiled to. See docs/jobs.md."""

from crowdlearn.job.compilation import CompiledJob
from crowdlearn.job.definition import Job
from crowdlearn.job.hyperparameters import SGD, Adagrad, Adam, Downpour, Momentum, Optimizer, RMSprop
from crowdlearn.job.parameters import Normal, load_weights

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "CompiledJob",
    "Downpour",
    "Job",
    "Momentum",
    "Normal",
    "Optimizer",
    "RMSprop",
    "load_weights",
]
