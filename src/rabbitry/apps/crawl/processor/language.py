"""The language of a page: its declaration, checked against its text."""

from __future__ import annotations

import re
from typing import Final

from resiliparse.parse.lang import detect_fast

_READ: Final = 4_000
"""Characters of a text that are examined."""
_ENOUGH: Final = 200
"""Characters above which the text counts more than the declaration."""
_CANDIDATES: Final = 3
_LIKELY: Final = 1_000
"""The distance from a language's profile up to which a match is likely (1,200: improbable)."""
_SCRIPTS: Final = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7a3\u1100-\u11ff]")),
    ("zh", re.compile("[\u3400-\u9fff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
"""Scripts of one language that the profiles cover badly. Japanese also uses Chinese characters, so it comes first."""
_SCRIPT_SHARE: Final = 0.1
_TAG: Final = re.compile(r"\s*([a-z]{2,3})(?![a-z0-9])", re.IGNORECASE)


def declared_language(tag: str | None) -> str:
    """Return the primary language of a BCP 47 tag, or of the first one in a list; "" if there is none."""
    found = _TAG.match(tag or "")
    return found[1].lower() if found else ""


def language_of(text: str, declared: str) -> str:
    """Return the language of a text; "" if it is unknown.

    declared: the page's declaration. It wins if the text is short, or not clearly in another language.
    """
    sample = text[:_READ]
    if not sample.strip():
        return declared
    if not sample.isascii():
        for language, characters in _SCRIPTS:
            if len(characters.findall(sample)) > _SCRIPT_SHARE * len(sample):
                return declared if language == "zh" and declared in ("ja", "ko") else language
    found = detect_fast(sample, n_results=_CANDIDATES)
    likely = [language for language, distance in found if distance <= _LIKELY] if isinstance(found, list) else []
    if not likely or (declared and (declared in likely or len(sample) < _ENOUGH)):
        return declared
    return likely[0]
