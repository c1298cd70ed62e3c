"""How fast squidmesh does durable work, measured beside a bare loop in the same run.

``python -m benchmarks`` runs every contender through every workload, each time in a fresh process,
one contender after the other, and prints one table per workload. See ``docs/performance.md``.
"""
