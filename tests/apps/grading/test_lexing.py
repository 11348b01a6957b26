"""Texts are read in a process within limits of CPU time and memory."""

import os
from pathlib import Path

import pytest

from rabbitry.apps.grading.colours import lexer_for
from rabbitry.apps.grading.exceptions import LexingFailed
from rabbitry.apps.grading.lexing import MEMORY, Lexing

HOSTILE = " \n" * 50_000
"""A text for which the lexer for Python needs minutes."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process import this file, which has the functions that it calls."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def _tokens(text: str, name: str) -> int:
    return sum(1 for _ in lexer_for(name).get_tokens_unprocessed(text))


def _end() -> None:
    os._exit(3)


def test_a_text_that_takes_too_long_is_given_up() -> None:
    with Lexing(1) as lexing:
        with pytest.raises(LexingFailed, match="not read within 1 s of CPU time"):
            lexing.run(_tokens, HOSTILE, "a.py")
        assert lexing.run(_tokens, "a = 1", "a.py") > 2  # in another process


def test_what_fails_is_named_and_the_next_call_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copy.py", "pickle.py", "pygments.py"):  # a submission that somebody saved here
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    with Lexing() as lexing:
        with pytest.raises(LexingFailed, match="MemoryError"):
            lexing.run(bytearray, 2 * MEMORY)
        with pytest.raises(LexingFailed, match="exit code 3"):
            lexing.run(_end)
        assert lexing.run(os.getpid) != os.getpid()
        assert lexing.run(_tokens, "a = 1", "a.py") > 2
