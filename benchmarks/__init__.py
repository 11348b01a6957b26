"""Measurements side by side with peers, in one run: `make bench`, or `make bench ARGS=client` for one.

Every module here that has a `main()` is one benchmark. They print what they
measured; docs/performance.md says what the figures mean.
"""
