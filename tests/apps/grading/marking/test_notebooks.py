"""Notebooks in the sandbox: the example of docs/languages.md, partial credit, and notebooks that misbehave."""

import json
import re
from pathlib import Path

import pytest

from rabbitry.apps.grading.exceptions import SchemeInvalid
from rabbitry.apps.grading.marking import Marking, load_scheme, mark
from rabbitry.apps.grading.marking._reporter import _asks_to_end, _code_of, checks_in
from tests.docs.blocks import blocks

pytestmark = pytest.mark.timeout(300)
_RIGHT = "def mean(numbers):\n    return sum(numbers) / len(numbers) if numbers else None\n"
_LOUD = """
from IPython.display import HTML, Javascript, display
display(HTML("<script>alert(1)</script>"), Javascript("alert(1)"))
print("x" * 30_000_000)
"""


def _notebook(*sources: str) -> bytes:
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# Mean"}]
    cells += [{"cell_type": "code", "metadata": {}, "source": source.splitlines(keepends=True)} for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def _marked(folder: Path, *sources: str, limits: str = "") -> Marking:
    found = {block.name: block.text for block in blocks("docs/languages.md")}
    (folder / "check_mean.py").write_text(found["check_mean.py"])
    scheme = found["notebook.toml"].replace("cpu_seconds = 30", limits or "cpu_seconds = 30, wall_seconds = 200")
    (folder / "scheme.toml").write_text(scheme)
    return mark(load_scheme(folder / "scheme.toml"), _notebook(*sources), "my mean.ipynb")


def test_the_example_gets_points_for_the_checks_that_pass(tmp_path: Path) -> None:
    found = {block.name: block.text for block in blocks("docs/languages.md")}
    marking = _marked(tmp_path, found["mean.ipynb"], "1 / 0", _LOUD)
    assert (marking.mark, marking.out_of) == (2, 3), marking.feedback
    said = marking.parts[0].output
    assert said.startswith("2 of 3 checks passed\nof nothing: ZeroDivisionError: "), said
    assert "code cell 2: ZeroDivisionError: division by zero" in said
    assert "xxx" not in said


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("exit()", "code cell 2: it ends the kernel"),
        ("import os\nos._exit(0)", "code cell 2: the kernel ended: DeadKernelError"),
        ("while True: pass", "code cell 2: the kernel ended: used more CPU time than the part allows"),
        ("import os\nwhile True: os.fork()", ""),
    ],
)
def test_a_notebook_that_ends_its_kernel_gets_no_points(source: str, why: str, tmp_path: Path) -> None:
    limits = "wall_seconds = 200, cpu_seconds = 4, memory = '256 MiB'"
    marking = _marked(tmp_path, _RIGHT, source, limits=limits)
    assert marking.mark == 0, marking.feedback
    said = marking.parts[0].output
    assert said.startswith("0 of 3 checks passed\n"), said
    assert why in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "has no list of cells"),
        (b'{"cells": 7}', "has no list of cells"),
        (b'{"cells": [], "metadata": {"language_info": {"name": "R"}}}', "the language of .* is 'R'"),
        (_notebook(*["pass"] * 1_001), "has 1001 cells of code, and at most 1000 are run"),
    ],
)
def test_what_is_no_notebook_to_run_is_named(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "x.ipynb"
    file.write_bytes(content)
    found = _code_of(str(file))
    assert isinstance(found, str)
    assert re.search(why, found), found


def test_strange_cells_are_run_as_far_as_they_are_text(tmp_path: Path) -> None:
    file = tmp_path / "x.ipynb"
    cells = [7, {"cell_type": "code"}, {"cell_type": "code", "source": ["a\n", 7, "b"]}, {"cell_type": "raw"}]
    file.write_text(json.dumps({"cells": cells, "metadata": 7}))
    assert _code_of(str(file)) == ["", "a\nb"]
    assert "there is no file" in _code_of(str(tmp_path / "y.ipynb"))


@pytest.mark.parametrize("payload", [None, 7, "ask_exit", {"source": "ask_exit"}, ["ask_exit", 7, {"source": "page"}]])
def test_an_answer_of_another_form_does_not_end_the_kernel(payload: object) -> None:
    assert not _asks_to_end({"payload": payload})
    assert _asks_to_end({"payload": [payload, {"source": "ask_exit"}]})


def test_checks_begin_at_their_titles() -> None:
    text = "import math\n# %% first\na\n# %%\nb\n# %% [markdown]\n# text\n"
    assert checks_in(text) == ("import math\n", [("first", "\na\n"), ("check 2", "\nb\n")])


@pytest.mark.parametrize(
    ("file", "checks", "why"),
    [
        ("mean.py", "# %% one\n", r"scheme\.toml:9: `notebook` needs the name of the notebook"),
        ("mean.ipynb", "assert True\n", r"scheme\.toml:9: 'check_mean\.py' has no checks"),
    ],
)
def test_a_scheme_that_makes_no_sense_is_named_with_its_line(file: str, checks: str, why: str, tmp_path: Path) -> None:
    found = {block.name: block.text for block in blocks("docs/languages.md")}
    (tmp_path / "check_mean.py").write_text(checks)
    (tmp_path / "scheme.toml").write_text(found["notebook.toml"].replace("mean.ipynb", file))
    with pytest.raises(SchemeInvalid, match=why):
        load_scheme(tmp_path / "scheme.toml")
