"""Reading marking schemes, and the places that errors name."""

import os
import sys
from pathlib import Path

import pytest

from rabbitry.apps.grading.exceptions import SchemeInvalid
from rabbitry.apps.grading.marking import load_scheme
from rabbitry.exceptions import UsageError

_RIGHT = """\
[scheme]
name = "Sorting"
file = "sort.py"
limits = { wall_seconds = 5, memory = "64 MiB" }

[[part]]
name = "sorts"
points = 2.5
command = ["python3", "sort.py"]
stdin = '''
3 1 2
[[part]]
'''
expect = { exact = "1 2 3" }

[[part]]
name = "tests"
points = 3
pytest = "test_sort.py"
[part.limits]
memory = 1048576
"""


def _write(folder: Path, text: str) -> Path:
    (folder / "test_sort.py").write_text("")
    path = folder / "scheme.toml"
    path.write_text(text)
    return path


def test_limits_of_a_part_override_those_of_the_scheme_and_the_defaults(tmp_path: Path) -> None:
    scheme = load_scheme(_write(tmp_path, _RIGHT))
    assert (scheme.name, scheme.out_of, scheme.folder) == ("Sorting", 5.5, tmp_path.resolve())
    first, second = (part.limits for part in scheme.part)
    assert (first.wall_seconds, first.memory, first.cpu_seconds) == (5, 64 * 1024**2, 10)
    assert (second.wall_seconds, second.memory, second.processes) == (5, 1024**2, 64)
    assert scheme.part[0].stdin == "3 1 2\n[[part]]\n"


@pytest.mark.parametrize(
    ("wrong", "instead", "line", "why"),
    [
        ('name = "Sorting"', 'name = "Sorting', 2, "[Ii]llegal character|[Uu]nterminated|Unclosed"),
        ('name = "Sorting"', 'nam = "Sorting"', 2, "unknown key `nam`"),
        ('name = "Sorting"', "", 1, "missing key `name`"),
        ('name = "Sorting"', 'name = " "', 2, "`name` is empty"),
        ('file = "sort.py"', 'file = "../sort.py"', 3, "without a folder"),
        ("wall_seconds = 5", "walk_seconds = 5", 4, "unknown key `walk_seconds`"),
        ("wall_seconds = 5", "wall_seconds = 0", 4, "`wall_seconds`: expected `float` > 0"),
        ('"64 MiB"', '"64 MB"', 4, "a size must be"),
        ('"64 MiB"', "true", 4, "a size must be"),
        ('"64 MiB"', "12", 4, "between"),
        ("points = 2.5", "points = -1", 8, "`points`: expected `float` > 0"),
        ("points = 2.5", 'points = "many"', 8, "`points`: expected `float`, got `str`"),
        ("points = 2.5", "points = nan", 8, "`points`"),
        ("points = 2.5", "", 6, "missing key `points`"),
        ("points = 2.5", 'points = 2.5\nbonus = "yes"', 9, "`bonus`: expected `bool`, got `str`"),
        ("points = 2.5", "points = 2.5\ncolour = 1", 9, "unknown key `colour`"),
        ("points = 2.5", "points = 2.5\nhidden = 1", 9, "`hidden`: expected `bool`, got `int`"),
        ('name = "Sorting"', 'name = "Sorting"\nreveal = "soon"', 3, "`reveal`: "),
        ('name = "Sorting"', 'name = "Sorting"\nreveal = 2026-12-01T12:00:00', 3, "`reveal`: .*timezone"),
        ('name = "Sorting"', 'name = "Sorting"\nhidden = "all"', 3, "`hidden`: expected `bool`, got `str`"),
        ('command = ["python3", "sort.py"]', "", 6, "needs one of `command`, `pytest` and `notebook`"),
        ('command = ["python3", "sort.py"]', "command = []", 9, "`command` is empty"),
        ('command = ["python3", "sort.py"]', 'command = ["a\\u0000"]', 9, "NUL"),
        ('expect = { exact = "1 2 3" }', "expect = { }", 14, "needs one of"),
        ('expect = { exact = "1 2 3" }', 'expect = { exact = "1", regex = "1" }', 14, "needs one of"),
        ('expect = { exact = "1 2 3" }', 'expect = { regex = "(" }', 14, "not a regular expression"),
        ('expect = { exact = "1 2 3" }', 'expect = { contains = "" }', 14, "everything would pass"),
        ('expect = { exact = "1 2 3" }', 'expect = "1 2 3"', 14, "`expect`: expected `table`, got `str`"),
        ('name = "tests"', 'name = "sorts"', 17, "two parts named 'sorts'"),
        ('pytest = "test_sort.py"', 'pytest = "../test_sort.py"', 19, "outside the scheme's folder"),
        ('pytest = "test_sort.py"', 'pytest = "test_other.py"', 19, "no file 'test_other.py'"),
        ('pytest = "test_sort.py"', 'pytest = "scheme.toml"', 19, "does not end in .py"),
        ('pytest = "test_sort.py"', 'pytest = "test_sort.py"\nexit = 1', 20, "`exit` is for `command`"),
        ("memory = 1048576", 'memory = "lots"', 21, "a size must be"),
    ],
)
def test_an_invalid_scheme_is_refused_with_file_line_and_reason(
    tmp_path: Path, wrong: str, instead: str, line: int, why: str
) -> None:
    assert wrong in _RIGHT
    path = _write(tmp_path, _RIGHT.replace(wrong, instead))
    with pytest.raises(SchemeInvalid, match=why) as caught:
        load_scheme(path)
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", ":1: `scheme`: missing key `name`"),
        (b'[scheme]\nname = "x"\n', ":1: missing key `part`"),
        (b'part = []\n[scheme]\nname = "x"\n', ":1: `part`: expected `list` of length >= 1"),
        (b'part = 3\n[scheme]\nname = "x"\n', ":1: `part`: expected `list`"),
        (b'scheme = 3\n', ":1: `scheme`: expected `table`"),
        (b'\nfolder = "/"\n', ":2: unknown key `folder`"),
        (b'[scheme]\nname = "\xff"\n', ":2: not UTF-8"),
        (b"a = " + b"[" * 100_000, ":1: "),
        (b"#" * 2_000_000, ":1: larger than 1 MiB"),
    ],
)  # fmt: skip
def test_files_that_are_not_schemes_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "scheme.toml"
    path.write_bytes(content)
    with pytest.raises(SchemeInvalid) as caught:
        load_scheme(path)
    assert f"{path}{why}" in str(caught.value)


def test_points_are_added_as_the_decimals_that_are_written(tmp_path: Path) -> None:
    parts = "".join(f'[[part]]\nname = "{n}"\npoints = 0.1\ncommand = "true"\n' for n in range(3))
    assert load_scheme(_write(tmp_path, f'[scheme]\nname = "x"\n{parts}')).out_of == 0.3


def test_a_scheme_of_bonus_parts_alone_is_refused(tmp_path: Path) -> None:
    part = '[[part]]\nname = "x"\npoints = 1\nbonus = true\ncommand = "true"\n'
    with pytest.raises(SchemeInvalid, match=r"scheme\.toml:6: every part is a bonus"):
        load_scheme(_write(tmp_path, f'[scheme]\nname = "x"\n{part}'))


def test_a_missing_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemeInvalid, match=r"none\.toml: can't read it: No such file"):
        load_scheme(tmp_path / "none.toml")


def test_pytest_of_another_python_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(SchemeInvalid, match=r"scheme\.toml:19: pytest is not installed for"):
        load_scheme(_write(tmp_path, _RIGHT))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    text = '[scheme]\nname = "x"\n[[part]]\nname = "a"\npoints = 1\ncommand = "true"\n'
    (tmp_path / "scheme.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_scheme(tmp_path / "scheme.toml").name == "x"


def test_a_scheme_that_is_a_pipe_or_a_folder_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scheme.toml")
    for path in (tmp_path / "scheme.toml", tmp_path):
        with pytest.raises(SchemeInvalid, match="not a regular file"):
            load_scheme(path)
