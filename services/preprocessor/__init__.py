"""The preprocessor: reads the raw items of a job's stream in order, runs the author's `preprocess` on each in processes
of their own, and commits the rows to the pool.

One item's way: partition_work -> workers -> worker -> rows, and back through partition_writer with a commit. Beside it,
ownership keeps the leases on partitions.
"""

from services.preprocessor.service import run

__all__ = ["run"]
