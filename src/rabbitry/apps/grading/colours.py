"""The syntax colours of a solution: its text in pieces, each with the kind of its tokens."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import Any, Final

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String
from pygments.util import ClassNotFound

from rabbitry.apps.grading.exceptions import LexingFailed
from rabbitry.apps.grading.lexing import Lexing

MOST: Final = 100_000
"""Characters of a text that is coloured; a longer one is one piece."""
_CPU_SECONDS: Final = 2
"""CPU time for the colours of a text. A program of MOST characters takes about 0.3 s."""
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

_logger = logging.getLogger(__name__)


def lexer_for(name: str) -> Lexer:
    """Return the lexer for a file by its name; one for plain text if the name tells nothing."""
    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        lexer = TextLexer()
    return lexer


def coloured(text: str, name: str) -> list[tuple[str, str | None]]:
    """Return a text in pieces with the kind of each: comment, keyword, string, number, name, builtin, or None.

    A text that is too long, or that can't be read within limits, is one piece. Blocks, for 0.2 s to some seconds: the
    text is read in a process of its own.

    Args:
        text: The text, of which nothing is lost.
        name: The file's name, which tells the language.
    """
    if not text or len(text) > MOST:
        return [(text, None)]
    try:
        with Lexing(_CPU_SECONDS) as lexing:
            return lexing.run(pieces_of, text, name)
    except LexingFailed as error:
        _logger.warning("a submission is shown without colours: %s", error)
        return [(text, None)]


def pieces_of(text: str, name: str) -> list[tuple[str, str | None]]:
    """Return a text in pieces, without limits: for a process that has them."""
    tokens = ((_kind(kind), value) for _, kind, value in lexer_for(name).get_tokens_unprocessed(text))
    return [("".join(value for _, value in same), kind) for kind, same in groupby(tokens, lambda token: token[0])]


def _kind(kind: Any) -> str | None:
    return next((name for group, name in _KINDS if kind in group), None)
