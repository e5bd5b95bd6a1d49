"""The applications of docs/applications.md: each one's data, baselines, model and measurement in a module of its own.

A module of this folder is an application if it has ``FLOORS`` and ``measure() -> list[Measured]``;
see :mod:`benchmarks.applications.record`.
What it needs for its data and baselines it imports inside functions: the check needs neither.
"""
