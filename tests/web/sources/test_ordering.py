"""The order of an app's stages."""

import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from rabbitry.web.sources.ordering import in_order


@dataclass
class _Stage:
    app: str
    key: str
    to: set[str] = field(default_factory=set)


def test_a_circle_of_stages_has_an_order() -> None:
    stages = {
        "a": _Stage("x", "a", {"b"}),
        "b": _Stage("x", "b", {"a", "c"}),
        "c": _Stage("x", "c"),
        "d": _Stage("y", "d", {"c"}),
    }
    assert in_order(stages) == {"d": 0, "a": 1, "b": 2, "c": 3}


def test_stages_come_after_those_whose_results_they_take() -> None:
    stages = {
        "all": _Stage("x", "#"),
        "last": _Stage("x", "c.*", {"lost"}),
        "middle": _Stage("x", "b", {"b", "c.d"}),
        "first": _Stage("x", "a", {"b", "c.e"}),
    }
    assert list(in_order(stages)) == ["first", "middle", "last", "all"]


def test_the_steps_grow_with_the_number_of_stages() -> None:
    few, many = _steps(_chain(100)), _steps(_chain(400))
    assert few > 100, "steps are counted"
    assert many < 6 * few


def _chain(number: int) -> dict[str, _Stage]:
    """Return so many stages in a row, the last one first, which is the worst case of a search for a free one."""
    return {f"s{one}": _Stage("x", f"k{one}", {f"k{one + 1}"}) for one in reversed(range(number))}


def _steps(stages: dict[str, _Stage]) -> int:
    """Return how many lines Python runs to put the stages in order."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        in_order(stages)
    finally:
        sys.settrace(before)
    return lines


def test_the_steps_of_comparing_patterns_are_bounded() -> None:
    long = ".".join("a" * 100)
    stages = {
        f"s{one}": _Stage("x", "#." * 100 + str(one), {f"{long}.{key}" for key in range(50)}) for one in range(50)
    }
    assert len(in_order(stages)) == 50
    assert _steps(stages) < 1_000_000
