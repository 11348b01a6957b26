"""Measurements side by side with peers, in one run: `make bench`, or `make bench ARGS=client` for one.

Each module with a `main()` is a benchmark. It prints its results; docs/performance.md explains the figures.
"""
