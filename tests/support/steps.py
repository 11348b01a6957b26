"""Changes of a broker that come in steps, for tests that want all of them at once."""

from collections.abc import Iterable


def take_all(steps: Iterable[None]) -> None:
    """Take all steps of a change without a turn for anybody else."""
    for _ in steps:
        pass
