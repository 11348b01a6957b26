"""The log's lines: what they cost, how long they are, and that no password is in them."""

import json
import logging
import subprocess
import sys

import pytest

from rabbitry.runtime.logging import LONGEST, JsonFormatter, LineFormatter, redact
from tests.support import commands

LINES = LineFormatter(colours=False)
JSON_LINES = JsonFormatter()


class Silent(Exception):
    """An error without a text that can be had."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("rabbitry.flow", logging.WARNING, __file__, 1, "%s", (message,), info)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://alice:secret@host/", "amqp://alice:***@host/"),
        ("amqp://alice:se@cr@et@host/", "amqp://alice:***@host/"),
        ("amqp://:secret@host", "amqp://:***@host"),
        ("postgresql+psycopg://u:p@h and amqps://v:q@h", "postgresql+psycopg://u:***@h and amqps://v:***@h"),
        ("http://host:80/path@x", "http://host:80/path@x"),
        ("é://u:p@h", "é://u:***@h"),
    ],
)
def test_passwords_in_urls_are_removed(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("formatter", [LINES, JSON_LINES])
def test_a_long_line_is_cut_and_shows_by_how_much(formatter: logging.Formatter) -> None:
    line = formatter.format(record("a" * (LONGEST + 500_000)))
    assert len(line) < LONGEST + 200
    assert "more characters)" in line


@pytest.mark.parametrize("formatter", [LINES, JSON_LINES])
@pytest.mark.parametrize("seen", range(1, 30))
def test_a_cut_through_a_url_shows_no_part_of_its_password(formatter: logging.Formatter, seen: int) -> None:
    url = "amqp://alice:correcthorsebattery@host/"
    line = formatter.format(record(" " * (LONGEST - len("flow: ") - seen) + url + "x" * 100))
    assert "correct" not in line
    assert line.count("c") <= len("(100 more characters)") + 2


@pytest.mark.parametrize("formatter", [LINES, JSON_LINES])
def test_an_error_whose_text_fails_is_logged_by_its_type(formatter: logging.Formatter) -> None:
    assert "Silent" in formatter.format(record("a handler failed", Silent()))


def test_an_unpaired_surrogate_is_one_line_of_json() -> None:
    line = JSON_LINES.format(record("\ud83d and \udcff", ValueError("\ud83d")))
    assert json.loads(line.encode("utf-8", "backslashreplace"))["error"] == "ValueError: \\ud83d"


def test_hostile_lines_of_a_million_characters_are_redacted_in_time() -> None:
    # A quadratic pattern would take hours for each; the limit is there to end it.
    program = (
        "from rabbitry.runtime.logging import redact\n"
        "for word in ('a', 'a:', 'a@', '://', '://a', '://a:', 'a://:', ':', '/', '1', ' ', '_', ':@', '//'):\n"
        "    redact('x://u:' + word * (1_000_000 // len(word)))\n"
        "    redact(word * (1_000_000 // len(word)) + '@')\n"
    )
    subprocess.run([sys.executable, "-c", program], env=commands.environment(), timeout=180, check=True)
