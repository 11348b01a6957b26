"""The log of every `rabbitry` process: one line for each event, with time, level, module and message.

On a terminal the time is short and the level coloured (unless NO_COLOR is set); elsewhere the time is ISO 8601 with its
zone, so that lines from several machines sort. `--log-json` writes one JSON object a line with the same fields.

Passwords in URLs are masked. Lines are cut after LONGEST characters, so that a text from a peer or a handler can't take
unbounded time or space. Events that repeat with each message are logged at debug level only, everywhere in Rabbitry.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import datetime
from enum import StrEnum

from rabbitry._errors import described

LONGEST = 16_384
"""Characters of a message, an error or a traceback that a line of the log shows."""
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s/]*@")
# It begins at the "://", not at the scheme: `\w+://` would begin anew at each letter of a long word, in quadratic time.
# From one "://" it looks no further than the next slash, so no character is looked at by two attempts.
_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class Level(StrEnum):
    """The values of `--log-level`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def redact(text: str) -> str:
    """Return `text` with the passwords of URLs masked."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def _shown(text: str, *, escape: bool) -> str:
    """Return `text` as the log shows it: cut if it is too long, and without passwords. escape: on one line."""
    rest = len(text) - LONGEST
    text = text[:LONGEST] if rest > 0 else text
    text = redact(_escaped(text) if escape else text)
    if rest <= 0:
        return text
    head, slashes, tail = text.rpartition("://")
    if slashes and not any(letter in " /" or letter.isspace() for letter in tail):
        text = f"{head}{slashes}***"  # the cut went through this URL, and perhaps through its password
    return f"{text}… ({rest} more characters)"


class LineFormatter(logging.Formatter):
    """One line of text for each event. A traceback follows at debug level only; its last line is always shown."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for an event."""
        at = datetime.fromtimestamp(record.created).astimezone()
        level = record.levelname
        if self._colours:
            head = f"{at:%H:%M:%S} \x1b[{_COLOURS.get(level, '0')}m{level:<7}\x1b[0m"
        else:
            head = f"{at.isoformat(timespec='milliseconds')} {level:<7}"
        text = _shown(f"{_where(record)}: {record.getMessage()}{_cause(record)}", escape=True)
        if record.exc_info and logging.getLogger().isEnabledFor(logging.DEBUG):
            text += "\n" + _shown(self.formatException(record.exc_info), escape=False)
        return f"{head} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object for each event: time, level, logger, message, and error and traceback if there was an error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON object for an event."""
        event = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": _where(record),
            "message": _shown(record.getMessage(), escape=False),
        }
        if record.exc_info and record.exc_info[1] is not None:
            event["error"] = _shown(described(record.exc_info[1]), escape=False)
            event["traceback"] = _shown(self.formatException(record.exc_info), escape=False)
        return json.dumps(event, ensure_ascii=False)


def configure(level: Level, *, as_json: bool) -> None:
    """Send the log of this process to stderr: Rabbitry's events, and those of libraries from warning up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(colours=_has_colours()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At info, libraries log things that users did not ask for. At debug, everything is shown.
    if level is Level.INFO:
        for library in ("asyncio", "uvicorn", "websockets", "httpx"):
            logging.getLogger(library).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _has_colours() -> bool:
    """Return whether stderr is a terminal that shows colours, and the user wants them (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _where(record: logging.LogRecord) -> str:
    """Return the public module that logged an event, such as `flow.worker` for `rabbitry.flow.worker._engine`."""
    return record.name.removeprefix("rabbitry.").partition("._")[0]


def _cause(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return f" ({described(record.exc_info[1])})"


def _escaped(text: str) -> str:
    """Return `text` on one line: text from a peer can neither begin a new line nor control the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
