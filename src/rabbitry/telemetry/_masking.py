"""Masking of secrets in texts that people are shown."""

from __future__ import annotations

import re
from typing import Final

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


def is_secret(name: str) -> bool:
    """Return whether a field of this name holds a secret: `password`, `api_key`, `accessToken` and the like."""
    return _NAME.search(_CAMEL.sub("_", name)) is not None


def masked(text: str) -> str:
    """Return a text with `***` in place of what stands after the name of a secret, and of logins in URLs."""
    return _IN_URL.sub(rf"\1{MASK}@", _IN_TEXT.sub(rf"\1{MASK}", text))
