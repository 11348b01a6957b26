"""Searching the index: words, "phrases", -without, site:HOST.

Any text is a search: what is no operator is words, and a text without words matches nothing. Words reach the database
quoted and as parameters, so that none is an operator there. Of a very large number of matches, RANKED are ranked (in
SQLite the newest), which bounds the time of a search. A search that only excludes looks at LOOKED_AT documents at most,
because the index of words has no list of those that it finds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import zstandard
from sqlalchemy import Connection, TextClause, bindparam
from sqlalchemy import text as sql

from rabbitry.apps.crawl.answers import LONGEST_SEARCH, MOST_FOUND, Found, Hit
from rabbitry.apps.crawl.keeper.index import decode_data
from rabbitry.apps.crawl.keeper.index_text import SEARCHED, folded, host_word, is_unspaced, plain_words, spaced
from rabbitry.exceptions import UsageError

RANKED: Final = 2_000
"""The most documents ranked."""
LOOKED_AT: Final = 50_000
"""The newest pages that a search which only excludes looks at. The answer notes that there are more."""
_STEP: Final = 2_500
"""Pages that it looks at with one statement."""
MOST_WORDS: Final = 40
"""The words of a search that are searched for. The answer notes that more were left out."""
SNIPPET: Final = 240
"""Characters of a snippet."""
_LONGEST_SITE: Final = len(":65535") + 253
"""Characters of a host with a port. PostgreSQL would leave out a much longer one, and search all sites."""

_TERM: Final = re.compile(r'(?P<minus>-?)(?P<site>site:)?(?:"(?P<quoted>[^"]*)"?|(?P<bare>[^\s"]+))', re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed search: phrases that a document must have, those that it must not have, and likewise sites.

    note: what of the text is not searched for, and why; empty if all is.
    """

    phrases: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    without_sites: tuple[str, ...] = ()
    note: str = ""


def read(typed: str) -> Search:
    """Parse a user's search. Raises UsageError if it is blank."""
    if not typed.strip():
        raise UsageError('no word to search for: write words, "phrases" or site:HOST; -WORD excludes a word')
    text = "".join(letter if letter.isprintable() else " " for letter in typed[:LONGEST_SEARCH])
    note = f"only the first {LONGEST_SEARCH:,} characters are searched for" if len(typed) > LONGEST_SEARCH else ""
    phrases: list[str] = []
    without: list[str] = []
    sites: list[str] = []
    without_sites: list[str] = []
    room = MOST_WORDS
    for term in _TERM.finditer(unicodedata.normalize("NFC", text)):
        # `--word` looks like an option, not like a word to leave out.
        is_without = bool(term["minus"]) and not (term["bare"] or "").startswith("-")
        host = _site(term["quoted"] or term["bare"]) if term["site"] else ""
        words = [host] if host else _words(term[0])
        if len(words) > room:
            note = f"only the first {MOST_WORDS} words are searched for"
            words = words[:room]
        room -= len(words)
        if host and words:
            (without_sites if is_without else sites).append(host)
        elif words:
            (without if is_without else phrases).append(" ".join(words))
    if room == MOST_WORDS:
        note = "the search has no letter and no digit"
    return Search(tuple(phrases), tuple(without), tuple(sites), tuple(without_sites), note)


def _words(text: str) -> list[str]:
    """Return a term's words; none if no document can have them."""
    # FTS5's letters are in these categories; a term without any would be a phrase that no document has.
    words = spaced("".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in text)).split()
    return words if any(map(_WORD.search, words)) else []


def _site(text: str) -> str:
    """Return the host, or `host:port`, in the form of `host_words`; empty if the text is none."""
    host = text.rpartition("://")[2].partition("/")[0].rpartition("@")[2].lower()
    host = host.replace("[", "").replace("]", "").removesuffix(":80").removesuffix(":443").strip(".")
    try:
        if not host.isascii():
            name, colon, port = host.partition(":")
            host = name.encode("idna").decode("ascii") + colon + port
    except UnicodeError:
        return ""
    return host if len(host) <= _LONGEST_SITE else ""


def search(connection: Connection, typed: str, limit: int = 10, offset: int = 0) -> Found:
    """Return the documents with these words, best first; words in a title count eight times.

    A search that only excludes finds all other documents among the newest LOOKED_AT. Raises UsageError if it is blank.
    """
    wanted = read(typed)
    if not (wanted.phrases or wanted.sites or wanted.without or wanted.without_sites):
        return Found([], 0, note=wanted.note)
    limit, offset = max(1, min(limit, MOST_FOUND)), max(0, min(offset, RANKED))
    note = wanted.note
    if wanted.phrases or wanted.sites:
        best, total = _ranked(connection, wanted, limit, offset)
    else:
        others, are_all = _others(connection, wanted)
        best, total = dict.fromkeys(others[:RANKED][offset : offset + limit], 0.0), len(others)
        if not are_all:
            note = note or f"exclusions alone look at the newest {LOOKED_AT:,} pages only: add a word or site:HOST"
    rows = {row.id: row for row in connection.execute(_DOCUMENTS, {"ids": list(best)})}
    pattern = _pattern(wanted)
    hits = [_hit(rows[identity], score, pattern) for identity, score in best.items() if identity in rows]
    return Found(hits, min(total, RANKED), total > RANKED, note)


# -- databases -------------------------------------------------------------------------------------------


def _ranked(connection: Connection, wanted: Search, limit: int, offset: int) -> tuple[dict[int, float], int]:
    """Return the best documents with their scores, and the number of all: at most RANKED + 1.

    Sorting and counting thousands of scores takes half as much CPU in the database as in Python.
    """
    if connection.dialect.name == "sqlite":
        statement = _SQLITE if wanted.phrases else _SQLITE_SITE
        words = " AND ".join(_sqlite_terms(wanted.phrases, wanted.sites))
        if without := _sqlite_terms(wanted.without, wanted.without_sites):
            words = f"({words}) NOT ({' OR '.join(without)})"
    else:
        statement, words = _POSTGRESQL, _postgresql_words(wanted)
    values = {"words": words, "most": RANKED + 1, "ranked": RANKED, "limit": limit, "offset": offset}
    found = connection.execute(statement, values).all()  # without a match, or at this offset, a row without an id
    return {row.id: row.score for row in found if row.id is not None}, found[0].total


def _others(connection: Connection, wanted: Search) -> tuple[list[int], bool]:
    """Return the documents without any of the words, newest first: at most RANKED + 1; and whether all were looked at.

    Documents are looked at in steps: most searches end with the first one.
    """
    if connection.dialect.name == "sqlite":
        statement, words = _SQLITE_OTHERS, " OR ".join(_sqlite_terms(wanted.without, wanted.without_sites))
    else:
        statement, words = _POSTGRESQL_OTHERS, _postgresql_words(wanted)
    newest = connection.execute(_NEWEST).scalar_one()
    oldest = max(0, newest - LOOKED_AT)
    found: list[int] = []
    for last in range(newest, oldest, -_STEP):
        values = {"words": words, "first": max(oldest, last - _STEP) + 1, "last": last, "most": RANKED + 1 - len(found)}
        found += connection.execute(statement, values).scalars()
        if len(found) > RANKED:
            return found, True
    return found, oldest == 0


def _sqlite_terms(phrases: Sequence[str], sites: Sequence[str]) -> list[str]:
    return [f'{{title text}} : "{phrase}"' for phrase in phrases] + [f"hosts : {host_word(site)}" for site in sites]


def _postgresql_words(wanted: Search) -> str:
    # websearch_to_tsquery accepts any input; in quotes it sees no operators.
    words = [f'"{plain_words(phrase)}"' for phrase in wanted.phrases]
    words += [host_word(site) for site in wanted.sites]
    words += [f'-"{plain_words(phrase)}"' for phrase in wanted.without]
    words += [f"-{host_word(site)}" for site in wanted.without_sites]
    return " ".join(words)


def _best_of(found: str) -> TextClause:
    """Return the statement for the best results of a query (id, score) and their number."""
    return sql(
        f"WITH found AS ({found})"  # noqa: S608 - constants
        " SELECT best.id, best.score, counted.total FROM (SELECT count(*) AS total FROM found) AS counted"
        " LEFT JOIN (SELECT id, score FROM (SELECT id, score FROM found LIMIT :ranked) AS ranked"
        " ORDER BY score DESC, id DESC LIMIT :limit OFFSET :offset) AS best ON true"
        " ORDER BY best.score DESC, best.id DESC"
    )


_SQLITE: Final = _best_of(
    "SELECT rowid AS id, -bm25(index_words, 8.0, 1.0, 0.0) AS score FROM index_words"
    " WHERE index_words MATCH :words ORDER BY rowid DESC LIMIT :most"
)
_SQLITE_SITE: Final = _best_of(
    "SELECT rowid AS id, 0.0 AS score FROM index_words WHERE index_words MATCH :words ORDER BY rowid DESC LIMIT :most"
)
_NEWEST: Final = sql("SELECT coalesce(max(id), 0) FROM index_documents")
_SQLITE_OTHERS: Final = sql(
    "SELECT id FROM index_documents WHERE id BETWEEN :first AND :last AND id NOT IN"
    " (SELECT rowid FROM index_words WHERE index_words MATCH :words AND rowid BETWEEN :first AND :last)"
    " ORDER BY id DESC LIMIT :most"
)
_POSTGRESQL: Final = _best_of(
    "SELECT id, ts_rank('{0, 0.1, 0.125, 1.0}', words, websearch_to_tsquery('simple', :words), 1) AS score"
    " FROM (SELECT id, words FROM index_documents WHERE words @@ websearch_to_tsquery('simple', :words) LIMIT :most)"
    " AS matching"
)
_POSTGRESQL_OTHERS: Final = sql(
    "SELECT id FROM index_documents WHERE id BETWEEN :first AND :last"
    " AND words @@ websearch_to_tsquery('simple', :words) ORDER BY id DESC LIMIT :most"
)
_DOCUMENTS: Final = sql(
    "SELECT d.id, p.url, d.title, d.text, d.fetched_at, d.data FROM index_documents d"
    " JOIN index_pages p ON p.id = d.id WHERE d.id IN :ids"
).bindparams(bindparam("ids", expanding=True))


# -- snippets --------------------------------------------------------------------------------------------


def _pattern(wanted: Search) -> re.Pattern[str] | None:
    """Return a pattern that finds a search's words in folded text, phrases before single words."""
    words = [word for phrase in wanted.phrases for word in _WORD.findall(folded(phrase))]
    if not words:
        return None
    several = [_WORD.findall(folded(phrase)) for phrase in wanted.phrases]
    choices = [_choice(phrase) for phrase in several if len(phrase) > 1]
    # A letter of a script without spaces is no word, unless it was typed alone.
    alone = {phrase[0] for phrase in several if len(phrase) == 1}
    choices += [_choice([word]) for word in dict.fromkeys(words) if word in alone or not is_unspaced(word)]
    return re.compile("|".join(choices))


def _choice(phrase: Sequence[str]) -> str:
    """Return a pattern for the words of a phrase, between ends of words."""
    pattern = re.escape(phrase[0])
    for before, word in pairwise(phrase):
        least = 0 if is_unspaced(before) or is_unspaced(word) else 1
        pattern += rf"[\W_]{{{least},5}}{re.escape(word)}"
    begin = "" if is_unspaced(phrase[0]) else r"(?<![^\W_])"
    end = "" if is_unspaced(phrase[-1]) else r"(?![^\W_])"
    return f"{begin}{pattern}{end}"


def _hit(row: Any, score: float, pattern: re.Pattern[str] | None) -> Hit:
    text = zstandard.ZstdDecompressor().decompress(row.text).decode()[:SEARCHED]
    snippet, marks = _snippet(text, pattern)
    return Hit(row.url, row.title, snippet, marks, round(score, 9), row.fetched_at, decode_data(row.data).language)


def _snippet(text: str, pattern: re.Pattern[str] | None) -> tuple[str, list[tuple[int, int]]]:
    """Return the part of a text with most of the words, on one line, and their positions in it."""
    places = []
    if pattern is not None:
        for found in pattern.finditer(folded(text)):
            places.append(found.span())
            if len(places) == 1_000:
                break
    start = max(0, min(_densest(places), len(text) - SNIPPET))
    end = min(len(text), start + SNIPPET)
    if start > 0:  # start at a whole word
        space = text.find(" ", start, start + 30)
        first = next((place[0] for place in places if place[0] >= start), end)
        start = space + 1 if 0 <= space < first else start
    if end < len(text):
        space = text.rfind(" ", end - 30, end)
        end = space if space > start else end
    # Replaced character by character, so that the positions stay valid.
    line = "".join(letter if letter.isprintable() else " " for letter in text[start:end])
    return line, [(left - start, right - start) for left, right in places if left >= start and right <= end]


def _densest(places: list[tuple[int, int]]) -> int:
    """Return the start of the window of SNIPPET characters with the most matches, with some text before the first."""
    best, start, left = 0, 0, 0
    for right, (_, end) in enumerate(places):
        while end - places[left][0] > SNIPPET - 40:
            left += 1
            if left > right:
                break
        if right - left + 1 > best:
            best, start = right - left + 1, places[left][0]
    return max(0, start - 40)
