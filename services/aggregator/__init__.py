"""The aggregator: reads each owned shard's stream in order, applies the optimizer in NumPy, commits to Redis.

One gradient's way: reader -> shard_work -> shard_writer -> crowdlearn.optim, and back with a commit. Beside it,
ownership keeps the leases and work_list the jobs.
"""

from services.aggregator.service import Aggregator, run

__all__ = ["Aggregator", "run"]
