"""`make bench`: every benchmark in turn, each with a table of ratios to a baseline of the same run."""

from benchmarks import browser, optimizers, pipeline

optimizers.main()
pipeline.main()
browser.main()
