"""Fingerprints of a program: hashes of runs of its tokens, thinned out by winnowing.

Schleimer, Wilkerson, Aiken: Winnowing: Local Algorithms for Document Fingerprinting (SIGMOD 2003). Names, numbers and
texts count as equal, comments and white space not at all: renaming and new comments change no fingerprint. Each
function has fingerprints of its own, so that their order does not matter.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pygments.token import Comment, Keyword, Name, Number, String, Text, Token

from rabbitry.apps.grading.colours import lexer_for
from rabbitry.apps.grading.similar.documents import LARGEST_NOTEBOOK, MOST, Document

RUN: Final = 16
"""Tokens of a run. Shorter matches are ignored: unrelated programs have them."""
WINDOW: Final = 8
"""Neighbouring runs of which one is kept. A match of RUN + WINDOW - 1 tokens is always found."""
MOST_TOKENS: Final = 100_000
"""Tokens of a document that are compared; those after them are left out."""
_CUT: Final = (
    f"text beyond {MOST} bytes, a file with binary data, or a notebook that can't be read or has more than "
    f"{LARGEST_NOTEBOOK} bytes is left out"
)
_NAME, _NUMBER, _TEXT = "n", "0", "''"


class Lexed(NamedTuple):
    """A document's tokens: their kinds as numbers, and where each begins and ends in the document's text.

    files: where in the tokens each file begins; no run goes over such a place.
    """

    kinds: array[int]
    begins: array[int]
    ends: array[int]
    files: list[int]


def lexed(document: Document) -> Lexed:
    """Return the tokens of a document."""
    found = Lexed(array("q"), array("q"), array("q"), [])
    for file in document.files:
        found.files.append(len(found.kinds))
        text = document.text[file.begin : file.end]
        for at, kind, value in lexer_for(file.name).get_tokens_unprocessed(text):
            if (same := _same(kind, value)) is None:
                continue
            if len(found.kinds) >= MOST_TOKENS:
                return found
            found.kinds.append(zlib.crc32(same.encode(errors="replace")))
            found.begins.append(file.begin + at)
            found.ends.append(file.begin + at + len(value))
    return found


def runs(tokens: Lexed) -> Iterator[tuple[int, int]]:
    """Yield the index of the first token and the hash of each run."""
    kinds = tokens.kinds.tolist()
    for begin, end in zip(tokens.files, [*tokens.files[1:], len(kinds)], strict=True):
        for first in range(begin, end - RUN + 1):
            yield first, hash(tuple(kinds[first : first + RUN]))


def winnowed(tokens: Lexed, known: Collection[int] = ()) -> array[int]:
    """Return the fingerprints of a document: of each window of runs the least hash, each once.

    Args:
        tokens: The document's tokens.
        known: Hashes of runs that are left out, those of starter code.
    """
    hashes = [found for _, found in runs(tokens) if found not in known]
    if not hashes:
        return array("q")
    windows = max(len(hashes) - WINDOW + 1, 1)
    kept = {min(hashes[first : first + WINDOW]) for first in range(windows)}
    return array("q", sorted(kept))


def fingerprints(document: Document, known: Collection[int] = ()) -> array[int]:
    """Return the fingerprints of a document; see `winnowed`."""
    return winnowed(lexed(document), known)


def read(document: Document, known: Collection[int] = ()) -> tuple[array[int], str | None]:
    """Return the fingerprints of a document, and what of it is not compared; None if all is."""
    tokens = lexed(document)
    if len(tokens.kinds) >= MOST_TOKENS:
        return winnowed(tokens, known), f"only its first {MOST_TOKENS} tokens are compared"
    return winnowed(tokens, known), _CUT if document.is_cut else None


def all_runs(documents: Sequence[Document]) -> frozenset[int]:
    """Return the hashes of all runs of documents, for starter code: in a submission others of them may be kept."""
    return frozenset(found for document in documents for _, found in runs(lexed(document)))


def _same(kind: Any, value: str) -> str | None:
    """Return what a token is compared as; None if it does not count."""
    if kind in Comment or not value.strip():
        return None
    if kind in Keyword or kind in Name.Builtin:
        return value
    if kind in Name:
        return _NAME
    if kind in Number:
        return _NUMBER
    if kind in String:
        return _TEXT
    return value.strip().lower() if kind in Text or kind is Token else value
