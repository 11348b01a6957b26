"""Masking of secrets in texts, headers and bodies that people are shown, by the names of their fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from rabbitry._decode import MAX_DEPTH, decode_json
from rabbitry.exceptions import Undecodable

_USUAL: Final = (
    "pass", "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "cookie", "api_key",
    "private_key", "access_key", "credential",
)  # fmt: skip
"""The words if none are named."""
MASK: Final = "•••"
_SHORT: Final = 4
"""Letters of a word up to which a name has to have it as a word of its own: `pass` is not in `compass`."""
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IN_URL: Final = re.compile(r"(://)[^/\s@'\"]*@")


class Masking:
    """Masks the values of fields whose names contain one of some words, and logins in URLs.

    Case, and `-`, `_`, and spaces in names, make no difference: `api_key` is also `X-API-Key` and `apiKey`.

    Args:
        words: The words; none to mask nothing.
    """

    def __init__(self, words: Iterable[str] = _USUAL) -> None:
        plain = {word for text in words if (word := text.strip("-_ \t\n").lower())}
        # The longest first: of `password` and `pass`, the match goes on behind the former.
        inner = "|".join(map(_pattern, sorted(plain, key=len, reverse=True)))
        self.is_active: bool = bool(plain)
        self._name = re.compile(inner, re.IGNORECASE)
        # A field of a text that is no JSON, or of JSON that is cut off: a name in quotes or not, and what follows it.
        self._fields = re.compile(
            rf"""((?:{inner})[\w.-]{{0,40}}["']?\s{{0,8}}[:=]\s{{0,8}})"""
            r"""("(?:[^"\\]|\\.)*"?|'[^']*'?|[{\[].*|(?:Bearer |Basic )?[^\s,;&}\]]+)""",
            re.IGNORECASE | re.DOTALL,
        )

    def is_masked(self, name: str) -> bool:
        """Return whether the value of a field with this name is masked."""
        return self.is_active and any(self._name.search(one) for one in (name, _CAMEL.sub("_", name)))

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a value, such as a table of headers, with the masked fields of all objects in it."""
        if depth > MAX_DEPTH:
            return MASK if self.is_active else value
        if isinstance(value, Mapping):
            return {
                name: MASK if self.is_masked(str(name)) else self.value(inner, depth + 1)
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.value(inner, depth + 1) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Return a text in which fields such as `password=…` and `"token": …`, and logins in URLs, are masked."""
        if not self.is_active or not (":" in text or "=" in text):  # as most lines of a traceback
            return text
        return _IN_URL.sub(rf"\1{MASK}@", self._fields.sub(lambda found: found[1] + MASK, text))

    def lines(self, text: str) -> str:
        """Return an error or a traceback with each line masked on its own: `token = [` hides no frame after it."""
        return "\n".join(map(self.text, text.split("\n")))

    def body(self, body: bytes) -> bytes | None:
        """Return a body with its fields masked: those of JSON, of which all else stays as it was written, or of text.

        None if it is not UTF-8 and therefore can't be masked.
        """
        if not self.is_active:
            return body
        try:
            return self._json(body, 0)
        except Undecodable:
            pass  # no JSON, or the beginning of some
        try:
            return self.text(body.decode()).encode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return None
            # The body may be cut within a character.
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


def _pattern(word: str) -> str:
    found = r"[-_ ]?".join(re.escape(part) for part in re.split(r"[-_\s]+", word) if part)
    return found if len(word) > _SHORT else rf"(?<![^\W_]){found}(?![^\W_])"
