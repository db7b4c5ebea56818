"""`make bench`: every benchmark in turn, each with a table of ratios to a baseline of the same run."""

from benchmarks import optimizers, pipeline

optimizers.main()
pipeline.main()
