"""`make bench`: every benchmark in turn, each with a table of ratios to a baseline of the same run."""

from benchmarks import browser, drift, fleet, optimizers, pipeline, soak, swarm

SWARM = ["--replicas=500", "--step-seconds=2", "--seconds=5", "--slow=0.1", "--stopped=0.01", "--compare"]
"""A minute's worth of what docs/scaling.md measures with thousands."""

optimizers.main()
pipeline.main()
swarm.main(SWARM)
fleet.main()
soak.main([])
drift.main([])
browser.main()
