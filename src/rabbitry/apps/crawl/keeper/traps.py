"""Traps: endless families of addresses without new content (calendars, facets, session ids, soft 404s).

Addresses are folded to shapes: digits to `#`, tokens to `*`, a query to its parameters' names. An address belongs to
its shape and to those of the paths above. A shape is a trap if many of its documents are near duplicates, unlike the
host's other documents. Of a shape about which too little is known, a few addresses are fetched and their answers
awaited: documents arrive late and in any order, and the cost of a trap must not depend on that.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.keeper.addresses import host_key

ENOUGH: Final = 6
"""Answers needed to judge a shape."""
SHARE: Final = 0.8
"""The share of near duplicates among a shape's documents above which it is a trap."""
STREAK: Final = 8
"""Near duplicates in a row that show a trap which began with real pages."""
_DOUBTFUL: Final = 2
_ELSEWHERE: Final = 5
_ELSEWHERE_SHARE: Final = 0.2
"""Documents of the host's other shapes that are no duplicates, and their share: else it proves nothing."""
PATIENCE: Final = 60.0
"""Seconds after which more of a shape are fetched although answers are missing."""
NEAR: Final = 3
"""The most bits in which fingerprints of near duplicates differ."""
_MOST_PRINTS: Final = 48
_MOST_SEGMENTS: Final = 25
_MOST_REPEATED: Final = 3
_MOST_CACHED: Final = 50_000
_DIGITS: Final = re.compile(r"[0-9]+")
_TOKEN: Final = re.compile(
    r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])(?:[0-9a-f]{8,}|[0-9A-Za-z_-]{12,})(?:\.[a-z]{1,5})?"
)
_UNSIGNED: Final = (1 << 64) - 1

Verdict: TypeAlias = Literal["good", "doubtful", "unknown", "trap"]


@dataclass(slots=True)
class Shape:
    """A family of addresses. sent: to crawlers; answered: their outcomes; documents: with a fingerprint.

    repeats: documents that are near duplicates of another; streak: how many of the latest in a row. sent_at: the last
    time, only in this keeper's memory.
    """

    key: int
    host: int
    shape: str
    sent: int = 0
    answered: int = 0
    documents: int = 0
    repeats: int = 0
    streak: int = 0
    prints: bytes | None = None
    sent_at: float = 0.0
    is_changed: bool = False

    def unanswered(self, now: float) -> int:
        """Return how many sent addresses may still be answered."""
        return max(0, self.sent - self.answered) if now < self.sent_at + PATIENCE else 0

    def is_near(self, fingerprint: int) -> bool:
        """Return whether a remembered document is a near duplicate."""
        prints = self.prints
        if not prints:
            return False
        wanted = fingerprint & _UNSIGNED
        others = struct.unpack(f"<{len(prints) // 8}Q", prints)
        return min(map(int.bit_count, map(wanted.__xor__, others))) <= NEAR

    def remember(self, fingerprint: int) -> None:
        """Store a document's fingerprint, replacing the oldest one if there are too many."""
        self.prints = ((self.prints or b"") + struct.pack("<Q", fingerprint & _UNSIGNED))[-8 * _MOST_PRINTS :]


@lru_cache(20_000)
def shapes_of(url: str) -> tuple[str, ...]:
    """Return the shapes of an address, narrowest first; the last is the whole host's."""
    path, question, query = url[url.index("/", 8) :].partition("?")
    segments = [_folded(segment) for segment in path.split("/")[1:]]
    kept = [segment for place, segment in enumerate(segments) if place == 0 or segment != segments[place - 1]]
    found = ["/" + "/".join(kept)]
    if question:
        names = sorted({parameter.partition("=")[0] for parameter in query.split("&")})
        found = [f"{found[0]}?{'&'.join(names)}", f"{found[0]}?"]
    for end in sorted({1, 2, len(kept) - 1}, reverse=True):
        if 1 <= end < len(kept):
            found.append("/" + "/".join(kept[:end]) + "/")
    return (*dict.fromkeys(found), "")


def _folded(segment: str) -> str:
    if segment.isalpha():
        return segment
    return "*" if _TOKEN.fullmatch(segment) else _DIGITS.sub("#", segment)


def grows(url: str) -> bool:
    """Return whether a path grows endlessly: it repeats the same segment, or has very many."""
    if url.count("/") < 2 + _MOST_REPEATED:
        return False  # most are this short
    segments = url[url.index("/", 8) :].partition("?")[0].split("/")
    if len(segments) > _MOST_SEGMENTS:
        return True
    if len(segments) - len(set(segments)) < _MOST_REPEATED - 1:
        return False
    counted = Counter(segment for segment in segments if segment and not segment.isdigit())
    return bool(counted) and max(counted.values()) >= _MOST_REPEATED


class Shapes:
    """The shapes of hosts in memory.

    Those that a transaction has loaded stay until its end, and beyond it the _MOST_CACHED that were used last.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], Shape] = OrderedDict()
        """By the host's id and the shape."""
        self._changed: dict[int, Shape] = {}

    def load(self, connection: Connection, hosts: Iterable[tuple[int, str, str]]) -> None:
        """Load the shapes of addresses into memory. hosts: the host's id, its name, and the address, for each."""
        known = self._known
        missing: dict[int, Shape] = {}
        # Most addresses of a host share a few shapes.
        for (host, shapes), name in {(host, shapes_of(url)): name for host, name, url in hosts}.items():
            for shape in shapes:
                if (host, shape) in known:
                    known.move_to_end((host, shape))
                else:
                    key = host_key(name, shape)
                    missing[key] = known[host, shape] = Shape(key, host, shape)
        if not missing:
            return
        found = sets.rows_among(
            connection,
            "SELECT key, host, shape, sent, answered, documents, repeats, streak, prints FROM crawl_shapes"
            " WHERE key IN {set}",
            missing,
        )
        for row in found:
            one = missing[row.key]
            _, _, _, one.sent, one.answered, one.documents, one.repeats, one.streak, one.prints = row

    def of(self, host: int, url: str) -> list[Shape]:
        """Return the loaded shapes of an address, narrowest first."""
        return [self._known[host, shape] for shape in shapes_of(url)]

    def change(self, shape: Shape) -> None:
        """Record that a shape must be written."""
        self._changed[shape.key] = shape

    def flush(self, connection: Connection) -> None:
        """Write the changed shapes, and forget those that were not used for longest."""
        if self._changed:
            values = [
                (
                    one.key,
                    one.host,
                    one.shape[:500],
                    one.sent,
                    one.answered,
                    one.documents,
                    one.repeats,
                    one.streak,
                    one.prints,
                )
                for one in self._changed.values()
            ]
            sets.change_many(connection, _PUT, values)
            self._changed.clear()
        while len(self._known) > _MOST_CACHED:
            self._known.popitem(last=False)


def verdict(shapes: Sequence[Shape], now: float) -> tuple[Verdict, Shape | None]:
    """Judge an address by its shapes; the narrowest with enough data decides.

    Returns the shape at fault: the trap; the doubtful one, which comes after others; the unknown one, whose answers are
    awaited.
    """
    whole = shapes[-1]
    for shape in shapes[:-1]:
        if shape.answered < ENOUGH:
            continue
        # Each time twice as many at once: if a family ends or becomes a trap, few were sent in vain.
        awaited = shape.unanswered(now) >= shape.answered
        if shape.documents < ENOUGH or not _repeats(shape):
            return ("unknown", shape) if awaited else ("good", None)
        elsewhere = whole.documents - shape.documents
        new = elsewhere - (whole.repeats - shape.repeats)
        is_trap = new >= _ELSEWHERE and new >= _ELSEWHERE_SHARE * elsewhere
        return "trap" if is_trap else "unknown" if awaited else "doubtful", shape
    for shape in shapes[:-1]:
        if shape.answered + shape.unanswered(now) >= ENOUGH:
            return "unknown", shape
    for shape in shapes[:-1]:
        if shape.streak >= _DOUBTFUL:
            return "doubtful", shape
    return "good", None


def _repeats(shape: Shape) -> bool:
    return shape.repeats >= SHARE * shape.documents or shape.streak >= STREAK


def sent(known: Shapes, shapes: Sequence[Shape], now: float) -> None:
    """Count an address that is sent."""
    whole = shapes[-1]
    whole.sent = whole.answered + whole.unanswered(now)  # without lost ones, so that a host can come to rest
    for shape in shapes:
        shape.sent += 1
        shape.sent_at = now
        known.change(shape)


def returned(known: Shapes, shapes: Sequence[Shape]) -> None:
    """Count a sent address that returns without a request, or is lost: no answer is to be awaited."""
    for shape in shapes:
        shape.sent -= 1
        known.change(shape)


def answered(known: Shapes, shapes: Sequence[Shape], fingerprint: int = 0, *, is_repeat: bool = False) -> None:
    """Count an address's outcome. fingerprint: its document's; is_repeat: whether it is known to be a duplicate."""
    is_near = is_repeat or (fingerprint != 0 and any(shape.is_near(fingerprint) for shape in shapes))
    for shape in shapes:
        shape.answered += 1
        if fingerprint:
            shape.documents += 1
            if is_near:
                shape.repeats += 1
                shape.streak += 1
            else:
                shape.streak = 0
                shape.remember(fingerprint)
        known.change(shape)


_PUT: Final = (
    "INSERT INTO crawl_shapes (key, host, shape, sent, answered, documents, repeats, streak, prints)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET sent = excluded.sent,"
    " answered = excluded.answered, documents = excluded.documents, repeats = excluded.repeats,"
    " streak = excluded.streak, prints = excluded.prints"
)
