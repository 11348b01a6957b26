"""Masking of secrets in texts and values that people are shown."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "***"
_NAMES: Final = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|private[_-]?key|authorization|credentials?|cookie"
)
_NAME: Final = re.compile(rf"(?:^|[^a-z])(?:{_NAMES})s?(?:$|[^a-z])", re.IGNORECASE)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IN_TEXT: Final = re.compile(
    rf"""((?<![a-z])(?:{_NAMES})s?["']?\s*[=:]\s*(?:(?:bearer|basic)\s+)?)("[^"\n]*"?|'[^'\n]*'?|[^\s,;&)}}\]]+)""",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"(://)[^/\s@'\"]*@")
_DEEPEST: Final = 64


def is_secret(name: str) -> bool:
    """Return whether a field of this name holds a secret: `password`, `api_key`, `accessToken` and the like."""
    return _NAME.search(_CAMEL.sub("_", name)) is not None


def masked(text: str) -> str:
    """Return a text with `***` in place of what stands after the name of a secret, and of logins in URLs."""
    return _IN_URL.sub(rf"\1{MASK}@", _IN_TEXT.sub(rf"\1{MASK}", text))


def masked_value(value: Any, depth: int = 0) -> Any:
    """Return a value of JSON with `***` in place of each field whose name says that it is a secret."""
    if depth > _DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {name: MASK if is_secret(str(name)) else masked_value(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [masked_value(one, depth + 1) for one in value]
    return value
