"""Masking secrets in messages that pages show, by the names of their fields: in headers and in bodies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from rabbitry._decode import MAX_DEPTH, decode_json
from rabbitry.exceptions import Undecodable

USUAL: Final = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "cookie", "api_key", "private_key",
    "access_key", "credentials",
)  # fmt: skip
"""Names whose fields are masked if none are named. A field matches if its name has one of them as a part."""
MASK: Final = "•••"


class Masking:
    """Masks the values of fields, wherever their names contain one of some words.

    Case, and `-`, `_`, and spaces in names, make no difference: `api_key` is also `X-API-Key` and `apiKey`.

    Args:
        names: The words; none to mask nothing.
    """

    def __init__(self, names: Iterable[str] = USUAL) -> None:
        self._words = tuple(word for name in names if (word := _plain(name)))
        inner = "|".join(r"[-_ ]?".join(map(re.escape, word)) for word in self._words)
        # A field of a text that is no JSON, or of JSON that is cut off: a name in quotes or not, and what follows it.
        self._fields = re.compile(
            rf"""(["']?[\w.-]{{0,40}}(?:{inner})[\w.-]{{0,40}}["']?\s{{0,8}}[:=]\s{{0,8}})"""
            r"""("(?:[^"\\]|\\.)*"?|'[^']*'?|[{\[].*|(?:Bearer |Basic )?[^\s,;&}\]]+)""",
            re.IGNORECASE | re.DOTALL,
        )

    def is_masked(self, name: str) -> bool:
        """Return whether the value of a field with this name is masked."""
        plain = _plain(name)
        return any(word in plain for word in self._words)

    def value(self, value: Any) -> Any:
        """Return a value, such as a table of headers, with the masked fields of all objects in it."""
        if isinstance(value, Mapping):
            return {name: MASK if self.is_masked(str(name)) else self.value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Return a text in which fields such as `password=…` and `"token": …` are masked."""
        return self._fields.sub(lambda found: found[1] + MASK, text) if self._words else text

    def body(self, body: bytes) -> bytes:
        """Return a body with its fields masked: those of JSON, of which all else stays as it was written, or of text.

        What is not UTF-8 stays as it is.
        """
        if not self._words:
            return body
        try:
            return self._json(body, 0)
        except Undecodable:
            pass  # no JSON, or the beginning of some
        try:
            return self.text(body.decode()).encode()
        except UnicodeDecodeError as error:
            # A body may be cut within a character; what is binary has no fields.
            if error.reason != "unexpected end of data":
                return body
            return self.text(body[: error.start].decode()).encode() + body[error.start :]

    def _json(self, body: bytes, depth: int) -> bytes:
        start = body.lstrip()[:1]
        if depth > MAX_DEPTH:
            raise Undecodable("it is nested too deeply")  # what is masked then is its text
        if start not in (b"{", b"["):
            decode_json(body, msgspec.Raw)  # raises if it is no JSON
            return body
        # Raw keeps each value as it was written: numbers that no Python type holds stay what they are.
        if start == b"{":
            members = decode_json(body, dict[str, msgspec.Raw])
            changed = {name: self._member(name, bytes(raw), depth) for name, raw in members.items()}
            is_same = all(bytes(members[name]) == new for name, new in changed.items())
            return body if is_same else msgspec.json.encode({name: msgspec.Raw(new) for name, new in changed.items()})
        items = [bytes(raw) for raw in decode_json(body, list[msgspec.Raw])]
        masked = [self._json(raw, depth + 1) for raw in items]
        return body if masked == items else msgspec.json.encode([msgspec.Raw(each) for each in masked])

    def _member(self, name: str, raw: bytes, depth: int) -> bytes:
        return f'"{MASK}"'.encode() if self.is_masked(name) else self._json(raw, depth + 1)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()
