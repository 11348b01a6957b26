"""The syntax colours of a solution: its text in pieces, each with the kind of its tokens."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String
from pygments.util import ClassNotFound

MOST: Final = 100_000
"""Characters of a text that is coloured; a longer one is one piece."""
_KINDS: Final = (
    (Comment, "comment"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (String, "string"),
    (Number, "number"),
    (Name.Function, "name"),
    (Name.Class, "name"),
    (Name.Builtin, "builtin"),
)


def lexer_for(name: str) -> Lexer:
    """Return the lexer for a file by its name; one for plain text if the name tells nothing."""
    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        lexer = TextLexer()
    return lexer


def coloured(text: str, name: str) -> list[tuple[str, str | None]]:
    """Return a text in pieces with the kind of each: comment, keyword, string, number, name, builtin, or None.

    Blocks for some ten milliseconds.

    Args:
        text: The text, of which nothing is lost.
        name: The file's name, which tells the language.
    """
    if len(text) > MOST:
        return [(text, None)]
    tokens = ((_kind(kind), value) for _, kind, value in lexer_for(name).get_tokens_unprocessed(text))
    return [("".join(value for _, value in same), kind) for kind, same in groupby(tokens, lambda token: token[0])]


def _kind(kind: Any) -> str | None:
    return next((name for group, name in _KINDS if kind in group), None)
