"""Large documents of definitions (50 MB and more), decoded element by element to save memory.

A document is read several times: first to check that it is JSON, then list by list. Decoded values are dropped after
use: a million decoded objects would take several times the document's size, and the garbage collector would block
clients to visit them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Final

from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.pace import Pace
from rabbitry.exceptions import Undecodable

MOST_OF_ELEMENT: Final = 1 << 20
"""Most bytes of an element of a list, or of another value, which is decoded in one step."""
_WINDOWS: Final = (1 << 12, 1 << 16, MOST_OF_ELEMENT)
"""Sizes of the window in which the end of a value is searched, tried in order."""
_SPACE: Final = re.compile(rb"[ \t\r\n]*")


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


class Document:
    """A JSON object whose lists are decoded when their elements are read.

    values: those that are not lists. lists: name → offset of the list.
    """

    def __init__(self, body: bytes | bytearray) -> None:
        self._text = body
        self.values: Json = {}
        self.lists: dict[str, int] = {}

    async def read(self, pace: Pace) -> None:
        """Check the whole document, in slices. Raises Undecodable. Call it before the other methods."""
        try:
            await self._read(pace)
        except (ValueError, RecursionError) as error:
            raise Undecodable(str(error)) from error

    async def _read(self, pace: Pace) -> None:
        at = len(codecs.BOM_UTF8) if self._text.startswith(codecs.BOM_UTF8) else 0
        char, at = self._next(self._expect("{", at))
        while char != "}":
            name, at = self._value(at)
            if not isinstance(name, str):
                raise ValueError("expected a name")
            self.values.pop(name, None)
            self.lists.pop(name, None)
            char, at = self._next(self._expect(":", at))
            if char == "[":
                self.lists[name] = at
                for _, end in self._elements(at):
                    at = end
                    await pace.rest()
            else:
                self.values[name], at = self._value(at)
                await pace.rest()
            char, at = self._next(at)
            if char == "}":
                break
            at = self._expect(",", at)
            if self._next(at)[0] == "}":
                raise ValueError(f"expected a name at byte {at}")
        if self._next(at + 1)[0]:
            raise ValueError("expected the end after the object")

    def elements(self, name: str) -> Iterator[object]:
        """Yield the elements of a list; none if it does not exist."""
        if name in self.lists:
            for value, _ in self._elements(self.lists[name]):
                if value is not _END:
                    yield value

    def _elements(self, at: int) -> Iterator[tuple[object, int]]:
        """Yield the elements of the list at an offset, each with the offset of its end, and finally _END."""
        at = self._expect("[", at)
        if self._next(at)[0] == "]":
            yield _END, self._expect("]", at)
            return
        while True:
            value, at = self._value(at)
            yield value, at
            if self._next(at)[0] == "]":
                yield _END, self._expect("]", at)
                return
            at = self._expect(",", at)

    def _value(self, at: int) -> tuple[object, int]:
        """Decode the value at an offset; return it, and the offset of its end."""
        _, at = self._next(at)
        for size in _WINDOWS:
            is_rest = at + size >= len(self._text)
            text, _ = codecs.utf_8_decode(self._text[at : at + size], "strict", is_rest)
            try:
                value, end = _DECODER.raw_decode(text)
            except json.JSONDecodeError:
                if is_rest:
                    raise
                continue  # it may continue behind the window
            if end == len(text) and not is_rest:
                continue  # a number may continue
            used = text[:end]
            if "\\u" in used:
                json.dumps(value, ensure_ascii=False).encode()  # raises ValueError for half of a surrogate pair
            return value, at + (end if used.isascii() else len(used.encode()))
        raise ValueError(f"byte {at} starts no JSON value, or one of more than {MOST_OF_ELEMENT >> 20} MiB")

    def _expect(self, char: str, at: int) -> int:
        """Return the offset behind a character. Raises ValueError if another one follows."""
        found, at = self._next(at)
        if found != char:
            raise ValueError(f"expected {char!r} at byte {at}")
        return at + 1

    def _next(self, at: int) -> tuple[str, int]:
        """Skip white space; return the character behind it, "" at the end, and its offset."""
        match = _SPACE.match(self._text, at)
        assert match is not None  # noqa: S101 # it matches the empty text too
        at = match.end()
        return chr(self._text[at]) if at < len(self._text) else "", at


_END: Final = object()
