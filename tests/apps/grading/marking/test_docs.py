"""The example of docs/marking.md works as described, and the table of limits is right."""

import re
from pathlib import Path

import msgspec

from rabbitry.apps.grading.marking import load_scheme, mark
from rabbitry.apps.grading.marking.scheme import Limits
from tests.docs.blocks import blocks

_TEXT = (Path(__file__).parents[4] / "docs" / "marking.md").read_text()


def test_the_example_gets_the_points_and_the_feedback_that_are_shown(tmp_path: Path) -> None:
    shown_blocks = blocks("docs/marking.md")
    assert [block.language for block in shown_blocks] == ["toml", "python", "python", "text"]
    scheme, tests, submission, feedback = (block.text for block in shown_blocks)
    (tmp_path / "scheme.toml").write_text(scheme)
    (tmp_path / "test_sort.py").write_text(tests)
    marking = mark(load_scheme(tmp_path / "scheme.toml"), submission.encode(), "my homework.py")
    shown = re.escape(feedback).replace(re.escape("…\n"), r"(?:    .*\n)+")
    assert re.fullmatch(shown, marking.feedback), marking.feedback
    assert f"gets {marking.mark:g} points of {marking.out_of:g}," in _TEXT


def test_the_table_of_limits_shows_the_defaults() -> None:
    rows = re.findall(r'^\| `(\w+)` \| (\d+|`"\d+ [KM]iB"`) \|', _TEXT, re.MULTILINE)
    said = {name: _number(value) for name, value in rows}
    assert said == msgspec.structs.asdict(Limits())


def _number(value: str) -> int:
    number, _, unit = value.strip('`"').partition(" ")
    return int(number) * {"": 1, "KiB": 1024, "MiB": 1024**2}[unit]
