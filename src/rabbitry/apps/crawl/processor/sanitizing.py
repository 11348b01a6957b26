"""Sanitizing HTML for parsers that take quadratic time on deep nesting and on tags with many attributes.

Lexbor took more than 25 s for 100,000 open `<div>`, and as long for a tag with 100,000 attributes: it walks up its
stack of open elements at each tag, and through all attributes at each further one. Browsers limit the depth too.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 4_000_000
"""Characters read of a page; crawlers fetch as many bytes by default."""
_DEEPEST: Final = 256
_DEEPEST_FORMATTING: Final = 24
"""The depth of elements such as `<b>`, which parsers reopen in each following paragraph if they are not closed."""
_MOST_ATTRIBUTES: Final = 300
_FEW_TAGS: Final = 5_000
"""Tags that may be nested: 5,000 take lexbor 30 ms."""
_SHORT: Final = 64 * 1024
"""Characters of one tag, which may all be attributes."""
# Elements that can't be nested in themselves, or have no content. `a` is one, so its links are kept.
_FLAT: Final = (
    "a|area|base|body|br|col|colgroup|dd|dt|embed|frame|head|hr|html|img|input|li|link|meta|option|p|param|rp|rt|script|"
    "source|style|tbody|td|tfoot|th|thead|title|tr|track|wbr"
)
_NESTING: Final = re.compile(rf"<(/?)(?!(?:{_FLAT})\b)([a-z][^\s/<>]*+)[^<>]*+>?", re.IGNORECASE)
_FORMATTING: Final = frozenset(
    ("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
)
# Possessive, so that no character is tried twice for one tag.
_ATTRIBUTE: Final = r"""[\s/]*+[^\s/<>=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s<>"']*+))?+"""
_LONG_TAG: Final = re.compile(
    rf"(<[a-z][^\s/<>]*+(?:{_ATTRIBUTE}){{{_MOST_ATTRIBUTES}}})(?:{_ATTRIBUTE})++", re.IGNORECASE
)


def sanitize(html: str) -> str:
    """Return a page that parses in bounded time: cut to LONGEST, without deep tags and with few attributes."""
    html = html[:LONGEST]
    if len(html) > _SHORT:
        html = _LONG_TAG.sub(r"\1", html)
    if html.count("<") > _FEW_TAGS:
        html = _NESTING.sub(_Depth(), html)
    return html


class _Depth:
    """Drops tags that are nested too deeply. Tags in scripts and comments count too, which only costs depth."""

    def __init__(self) -> None:
        self._depth = 0
        self._formatting = 0

    def __call__(self, tag: re.Match[str]) -> str:
        if tag[2].lower() in _FORMATTING:
            self._formatting, is_kept = _step(self._formatting, tag[1], _DEEPEST_FORMATTING)
        else:
            self._depth, is_kept = _step(self._depth, tag[1], _DEEPEST)
        return tag[0] if is_kept else ""


def _step(depth: int, closing: str, deepest: int) -> tuple[int, bool]:
    """Return the depth after a tag, and whether the tag is kept."""
    if closing:
        return max(0, depth - 1), depth <= deepest
    return depth + 1, depth < deepest
