"""The order in which an app's stages are shown: as messages pass them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

from rabbitry.flow.spec import topic_matches

MOST_STEPS: Final = 2_000_000
"""Steps of comparing keys with patterns, a tenth of a second; patterns beyond it are not compared."""
_STEPS_OF_CALL: Final = 20


class Ordered(Protocol):
    """A stage: its app, its binding key, and the keys of its results."""

    app: str
    key: str
    to: set[str]


def in_order(stages: Mapping[str, Ordered]) -> dict[str, int]:
    """Return the place of each stage: after the stages whose results it takes, otherwise in order of first reports.

    The steps grow with the stages and with the results that go from one to another (Kahn's algorithm, with a heap for
    the order of first reports). Only the keys with `*` or `#` of an app are compared one by one, MOST_STEPS at most.

    Args:
        stages: `APP/STAGE` → stage, in order of first reports.
    """
    names = list(stages)
    after = list(_targets(list(stages.values())))
    before = [0] * len(names)
    for targets in after:
        for target in targets:
            before[target] += 1
    free = [number for number, others in enumerate(before) if not others]
    heapify(free)
    first = 0
    places: dict[str, int] = {}
    while len(places) < len(names):
        while names[first] in places:
            first += 1
        # In a cycle the stage that was reported first comes first.
        number = heappop(free) if free else first
        if names[number] in places:
            continue  # it stood in a cycle, and was placed before it was free
        places[names[number]] = len(places)
        for target in after[number]:
            before[target] -= 1
            if not before[target]:
                heappush(free, target)
    return places


def _targets(stages: list[Ordered]) -> Iterator[set[int]]:
    """Yield for each stage the numbers of the others that take its results."""
    exact: dict[tuple[str, str], set[int]] = {}
    patterns: dict[str, list[int]] = {}
    for number, stage in enumerate(stages):
        exact.setdefault((stage.app, stage.key), set()).add(number)
        if "*" in stage.key or "#" in stage.key:
            patterns.setdefault(stage.app, []).append(number)
    words = [stage.key.count(".") + 1 for stage in stages]
    steps = 0
    for number, stage in enumerate(stages):
        found: set[int] = set()
        for key in stage.to:
            found |= exact.get((stage.app, key), set())
            length = key.count(".") + 1
            for other in patterns.get(stage.app, ()):
                steps += _STEPS_OF_CALL + length * words[other]
                if steps > MOST_STEPS:
                    break
                if topic_matches(stages[other].key, key):
                    found.add(other)
        yield found - {number}
