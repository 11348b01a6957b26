"""Large bodies of requests, decoded in slices: a document of definitions may have 50 MB."""

import codecs
import json
import re
from typing import Final

from rabbitry.broker.management.encoding import Json
from rabbitry.broker.management.pace import Pace
from rabbitry.exceptions import Undecodable

_PIECE: Final = 1 << 18
"""Bytes of text decoded in one step."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


async def read_object(body: bytearray, pace: Pace) -> Json:
    """Decode a JSON object; the elements of lists in it are decoded one by one. Raises Undecodable."""
    reader = _Reader(await _text(body, pace), pace)
    try:
        return await reader.whole()
    except (ValueError, RecursionError) as error:
        raise Undecodable(str(error)) from error


async def _text(body: bytearray, pace: Pace) -> str:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    pieces: list[str] = []
    try:
        for start in range(0, len(body), _PIECE):
            pieces.append(decoder.decode(bytes(body[start : start + _PIECE])))
            await pace.rest()
        pieces.append(decoder.decode(b"", final=True))
    except UnicodeDecodeError as error:
        raise Undecodable("no UTF-8 text") from error
    return "".join(pieces)


class _Reader:
    """A reader of JSON text. Its methods raise ValueError for invalid JSON."""

    def __init__(self, text: str, pace: Pace) -> None:
        self._text = text
        self._pace = pace
        self._at = 0

    async def whole(self) -> Json:
        """Read an object; raise ValueError where text follows it."""
        found: Json = {}
        self._expect("{")
        if self._next() == "}":
            self._expect("}")
        else:
            while True:
                name = self._value()
                if not isinstance(name, str):
                    raise ValueError("a name is expected")
                self._expect(":")
                found[name] = await self._list() if self._next() == "[" else self._value()
                if not self._goes_on("}"):
                    break
        if self._next():
            raise ValueError("there is text behind the object")
        return found

    async def _list(self) -> list[object]:
        found: list[object] = []
        self._expect("[")
        if self._next() == "]":
            self._expect("]")
            return found
        while True:
            found.append(self._value())
            await self._pace.rest()
            if not self._goes_on("]"):
                return found

    def _value(self) -> object:
        self._next()
        start = self._at
        value, self._at = _DECODER.raw_decode(self._text, start)
        if "\\u" in self._text[start : self._at]:
            json.dumps(value, ensure_ascii=False).encode()  # raises ValueError for half of a surrogate pair
        return value

    def _goes_on(self, end: str) -> bool:
        """Read a comma or the closing bracket; return whether another element follows."""
        is_end = self._next() == end
        self._expect(end if is_end else ",")
        return not is_end

    def _expect(self, char: str) -> None:
        if self._next() != char:
            raise ValueError(f"{char!r} is expected at character {self._at}")
        self._at += 1

    def _next(self) -> str:
        """Skip white space; return the character behind it, "" at the end."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # noqa: S101 # it matches nothing too
        self._at = match.end()
        return self._text[self._at : self._at + 1]
