"""Submissions that claim points for tests that they do not pass."""

import hashlib
import hmac
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rabbitry.apps.grading.marking import Marking, mark
from rabbitry.apps.grading.marking._pytest_report import read_report
from tests.apps.grading.marking.conftest import MakeScheme

_TESTS = """
import statistics

import main

def test_first():
    assert main.double(1) == 2

def test_second():
    assert main.double(2) == 4

def test_third():
    assert main.double(3) == statistics.mean([5, 7])
"""
_PART = '[[part]]\nname = "tests"\npoints = 3\npytest = "test_main.py"\n'
_RIGHT = "def double(x): return 2 * x\n"
_WRONG = "def double(x): return 0\n"
_FAKE = """
print("\\n3 passed in 0.01s")
"""
_EVERY_DESCRIPTOR = """
import json, os
lines = [{"number": n, "event": event, "test": f"test_main.py::test_{which}", "passed": True}
         for n, (event, which) in enumerate([("began", ""), *[(e, t) for e in ("found", "done")
         for t in ("first", "second", "third")], ("ended", "")], 1)]
for fd in range(3, 64):
    for line in lines:
        try: os.write(fd, b"0" * 64 + b" " + json.dumps(line).encode() + b"\\n" + json.dumps(line).encode() + b"\\n")
        except OSError: pass
"""

MarkTests = Callable[..., Marking]


@pytest.fixture
def mark_tests(scheme: MakeScheme, tmp_path: Path) -> MarkTests:
    """Mark a submission with the three tests."""

    def mark_it(solution: str | dict[str, str], *, cpu_seconds: int = 6) -> Marking:
        (tmp_path / "course").mkdir(exist_ok=True)
        (tmp_path / "course" / "test_main.py").write_text(_TESTS)
        part = scheme(_PART + f"limits = {{ wall_seconds = 80, cpu_seconds = {cpu_seconds} }}\n")
        if isinstance(solution, str):
            return mark(part, solution.encode(), "main.py")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in solution.items():
                archive.writestr(name, content)
        return mark(part, packed.getvalue(), "homework.zip")

    return mark_it


def test_the_right_solution_gets_all_points(mark_tests: MarkTests) -> None:
    marking = mark_tests(_RIGHT)
    assert (marking.mark, marking.out_of, marking.parts[0].passed) == (3, 3, True)


def test_points_are_shared_out_over_the_tests(mark_tests: MarkTests) -> None:
    marking = mark_tests("def double(x): return 2 * x if x < 3 else 7\n")
    assert (marking.mark, marking.parts[0].passed) == (2, False)
    assert "2 of 3 tests passed\ntest_third: assert 7 == 6" in marking.parts[0].output


@pytest.mark.parametrize(
    ("solution", "points", "said"),
    [
        ("import os\nos._exit(0)\n", 0, "the program ended before all tests were run"),
        (_FAKE + "import os, sys\nsys.stdout.flush()\nos._exit(0)\n", 0, "no test was found"),
        (_FAKE + "raise SystemExit(0)\n", 0, "could not be loaded"),
        ("import os\ndef double(x): return 2 if x == 1 else os._exit(0)\n", 1, "test_second: did not finish"),
        (_EVERY_DESCRIPTOR + _WRONG, 0, "0 of 3 tests passed"),
        (_EVERY_DESCRIPTOR + "os._exit(0)\n", 0, "no test was found"),
        ("import os\nfor fd in range(3, 64):\n    try: os.close(fd)\n    except OSError: pass\n" + _RIGHT, 0, "ended"),
        ("import pytest\npytest.skip(allow_module_level=True)\n", 0, "no test was found"),
        ("import pytest\ndef double(x): pytest.skip()\n", 0, "test_first: "),
        ("import pytest\ndef double(x): pytest.xfail()\n", 0, "test_first: "),
        ("import pytest\ndef double(x): pytest.exit('all passed', 0)\n", 0, "did not finish"),
        ("def double(x):\n    while True: pass\n", 0, "CPU time"),
        ("import os, signal\ndef double(x): os.kill(os.getpid(), signal.SIGKILL)\n", 0, "SIGKILL"),
        ("import os, time\nif os.fork(): os._exit(0)\ntime.sleep(1)\n" + _RIGHT, 0, "ended before"),
        ("syntax error", 0, "could not be loaded"),
        (_WRONG, 0, "0 of 3 tests passed"),
    ],
)
def test_tests_that_did_not_pass_earn_no_points(mark_tests: MarkTests, solution: str, points: float, said: str) -> None:
    marking = mark_tests(solution, cpu_seconds=2 if said == "CPU time" else 6)
    assert (marking.mark, marking.parts[0].passed) == (points, False), marking.feedback
    assert said in marking.parts[0].output


_PATCH = """
import pytest
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""


@pytest.mark.parametrize(
    "beside",
    [
        {"conftest.py": _PATCH},
        {"pytest.ini": "[pytest]\naddopts = -p evil\n", "evil.py": _PATCH},
        {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-p evil"\n', "evil.py": _PATCH},
        {"test_main.py": "def test_nothing(): pass\n"},
        {"pytest.py": "def main(*_, **__): print('3 passed')\n"},
        {"json.py": "raise SystemExit\n", "hmac.py": "raise SystemExit\n"},
        {"statistics.py": "def mean(numbers): return 0\n"},
        {"sitecustomize.py": "import os; os._exit(0)\n", "usercustomize.py": "import os; os._exit(0)\n"},
    ],
    ids=lambda files: " ".join(files),
)
def test_files_beside_the_solution_change_nothing(mark_tests: MarkTests, beside: dict[str, str]) -> None:
    wrong = mark_tests({"main.py": _WRONG, **beside})
    assert wrong.mark == 0, wrong.feedback
    assert "0 of 3 tests passed" in wrong.parts[0].output
    assert mark_tests({"main.py": _RIGHT, **beside}).mark == 3


_ODD = """
import os, sys
def double(x):
    if x == 1: return 2
    {fails}
"""


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("raise ValueError('half of ' + chr(0xd83d))", "test_second: ValueError: half of \N{REPLACEMENT CHARACTER}"),
        ("raise OSError(b'caf\\xe9'.decode('utf-8', 'surrogateescape'))", "OSError: caf\N{REPLACEMENT CHARACTER}"),
        (
            "raise ValueError('a\\0b\\x1b[31mc')",
            "ValueError: a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31mc",
        ),
        ("raise ValueError('x' * 5_000_000 + ' the end')", "test_second: ValueError: xxx"),
        ("raise ValueError('\\n' * 5000 + chr(0xdfff))", "test_second: ValueError"),
        ("raise type('E' + chr(0xdc80), (Exception,), {})('odd')", "test_second: "),
        ("print(chr(0xdc80)); os.write(1, b'\\xff\\0'); sys.stderr.buffer.write(b'\\xfe'); return 0", "assert 0 == 4"),
        ("raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})", "test_second: "),
        ("raise type('E', (Exception,), {'__repr__': lambda self: chr(0xdc80)})(chr(0xdc80))", "test_second: "),
        ("class Odd:\n        def __repr__(self): return chr(0xd800)\n    return Odd()", "test_second: "),
        ("return b'\\xff' * 100_000", "test_second: "),
    ],
)
def test_no_text_of_a_failing_test_costs_the_mark(mark_tests: MarkTests, fails: str, said: str) -> None:
    marking = mark_tests(_ODD.format(fails=fails))
    assert marking.mark == 1, marking.feedback
    assert said in marking.parts[0].output, marking.feedback
    assert said[:20] in marking.feedback
    marking.feedback.encode()
    assert len(marking.feedback) < 20_000


def test_tests_with_names_of_every_kind_are_told_apart(scheme: MakeScheme, tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "test_main.py").write_text(
        """
import pytest

TEXTS = [letter + "x" * 2000 for letter in "abcdé"]

@pytest.mark.parametrize("text", [*TEXTS, "::", "a\\0b", "\\udce9", "\\udcea", "\\x1b[1m"])
def test_it(text):
    assert text[0] in "ab:"

@pytest.mark.parametrize("number", [1, 2, 3], ids=["Größe", "名前", "a::b c"])
def test_named(number):
    assert number == 2
"""
    )
    part = '[[part]]\nname = "tests"\npoints = 13\npytest = "test_main.py"\n'
    marking = mark(scheme(part), b"#", "main.py")
    assert marking.mark == 5, marking.feedback
    assert "5 of 13 tests passed" in marking.parts[0].output


_KEY = b"k" * 32


def _line(number: int, key: bytes = _KEY, **event: object) -> bytes:
    text = json.dumps({"number": number, **event}).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest().encode() + b" " + text + b"\n"


_NO_JSON = [
    b"\xff",
    b'{"number": 1, "event": "done", "test": "\\udce9"}',
    b'{"number": 1, "event": "done", "test": "\xff"}',
    b'{"number": ' + b"[" * 100_000,
    b"[]",
    b"",
]


def test_a_line_that_is_not_json_is_ignored() -> None:
    lines = []
    for number, text in enumerate(_NO_JSON):
        signed = hmac.new(_KEY, text, hashlib.sha256).hexdigest().encode() + b" " + text
        lines += [signed, b"%d" % number]
    report = read_report(b"\n".join(lines) + b"\n" + _line(1, event="began"), _KEY)
    assert report.began


def test_unsigned_repeated_and_misordered_lines_are_ignored() -> None:
    failed = _line(3, event="done", test="a", passed=False, why="wrong")
    report = read_report(
        _line(1, event="began")
        + _line(2, event="found", test="a")
        + _line(3, b"another key", event="done", test="a", passed=True)
        + b'{"number": 3, "event": "done", "test": "a", "passed": true}\n'
        + b"\xff\xff \xff\n\n"
        + failed
        + failed.replace(b"false", b"true")
        + _line(3, event="done", test="a", passed=True)
        + _line(9, event="done", test="a", passed=True)
        + _line(4, event="done", test="never found", passed=True),
        _KEY,
    )
    assert report.tests == {"a": "wrong"}
    assert (report.began, report.ended) == (True, False)
