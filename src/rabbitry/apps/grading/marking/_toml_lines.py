"""Line numbers in a TOML file; tomllib has them only for syntax errors."""

from __future__ import annotations

import re
import tomllib

Place = tuple[str | int, ...]
"""The keys from the top of a document to a value; a number is an index into an array of tables."""

_HEADER = re.compile(r"\s*\[(\[)?([^\[\]]+)\](?(1)\])\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_SYNTAX = re.compile(r" \(at line (\d+), column \d+\)$")


def find_line(text: str, place: Place) -> int:
    """Return the line, from 1, of the value at `place`, or of the nearest enclosing table.

    Keys of an inline table are found at the line where that table begins.
    """
    lines = _lines(text)
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def syntax_error(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """Return the line of a syntax error, and the error."""
    message = str(error)
    if found := _SYNTAX.search(message):
        return int(found[1]), message[: found.start()]
    return text.count("\n") + 1, message.removesuffix(" (at end of document)") + " at the end of the file"


def _lines(text: str) -> dict[Place, int]:
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    closes: str | None = None  # ends the multi-line string that we are in
    for number, line in enumerate(text.splitlines(), 1):
        if closes is not None:
            closes = None if closes in line else closes
            continue
        if header := _HEADER.match(line):
            table = _resolve(_split(header[2]), counts)
            if header[1]:
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_split(key[1])), number)
            for quotes in ('"""', "'''"):
                if line.count(quotes) == 1:
                    closes = quotes
    return lines


def _split(key: str) -> Place:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def _resolve(keys: Place, counts: dict[Place, int]) -> Place:
    """Insert the index of the array's table: `[part.limits]` belongs to the latest `[[part]]`."""
    place: Place = ()
    for key in keys[:-1]:
        place = (*place, key)
        if place in counts:
            place = (*place, counts[place])
    return (*place, keys[-1])
