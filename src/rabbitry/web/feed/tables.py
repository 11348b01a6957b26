"""Tables: topics of many rows, of which each page sees a window, sorted and filtered as it likes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from rabbitry.exceptions import UsageError
from rabbitry.web.feed.topics import Params, Part, Subscription, Topic

MOST_ROWS: Final = 500
"""Rows of a window."""
LAST_ROW: Final = 1 << 31
"""The last row at which a window may begin."""
MOST_SORTS: Final = 4
"""Columns by which a window is sorted."""
MOST_FILTER: Final = 200
"""Characters of a filter."""
_COMPARISON: Final = re.compile(r"([a-z_]+)(>=|<=|=|>|<)(.*)", re.DOTALL)

Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[Any, ...]


class Column(NamedTuple):
    """A column. All cells of one have the same type, so that they can be compared."""

    name: str
    kind: Literal["text", "number"] = "text"


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page's parameters of a table."""

    sort: tuple[str, ...] = ()
    filter: str = ""
    first: int = 0
    count: int = 100


class Table(Topic):
    """Rows that a source replaces as a whole, or one by one.

    Args:
        columns: The columns; the first `keys` of them identify a row.
        keys: How many do.
    """

    def __init__(self, columns: Sequence[Column], keys: int) -> None:
        super().__init__()
        self.columns: tuple[Column, ...] = tuple(columns)
        self.keys = keys
        self.places: dict[str, int] = {column.name: place for place, column in enumerate(columns)}
        self.version: int = 0
        self._rows: dict[Key, Row] = {}
        self._order: list[Key] | None = []
        self._lists: WeakValueDictionary[tuple[tuple[str, ...], str], _Sorted] = WeakValueDictionary()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def replace(self, rows: Iterable[Row], at: float) -> None:
        """Replace all rows."""
        new = {row[: self.keys]: row for row in rows}
        if new.keys() != self._rows.keys():
            self._order = None
        if new != self._rows:
            self.version += 1
        self._rows, self.at = new, at
        self.ring()

    def update(self, rows: Iterable[Row], gone: Iterable[Key], at: float) -> None:
        """Replace, add and remove single rows."""
        known = self._rows
        for row in rows:
            key = row[: self.keys]
            if key not in known:
                self._order = None
            known[key] = row
            self.version += 1
        for key in gone:
            if known.pop(key, None) is not None:
                self._order = None
                self.version += 1
        self.at = at
        self.ring()

    def rows(self) -> list[Row]:
        """Return all rows, in the order of their keys."""
        if self._order is None:
            self._order = sorted(self._rows)
        return [self._rows[key] for key in self._order]

    def _subscription(self, params: Params) -> Subscription:
        try:
            window = msgspec.convert(params, Window)
        except msgspec.ValidationError as error:
            raise UsageError(f"parameters of a table: {error}") from error
        if not (0 <= window.first <= LAST_ROW and 0 <= window.count <= MOST_ROWS):
            raise UsageError(f"a window begins at a row from 0 to {LAST_ROW} and has at most {MOST_ROWS} rows")
        if len(window.filter) > MOST_FILTER or len(window.sort) > MOST_SORTS:
            raise UsageError(f"a filter has at most {MOST_FILTER} characters, an order at most {MOST_SORTS} columns")
        what = (window.sort, window.filter)
        found = self._lists.get(what)
        if found is None:
            found = self._lists[what] = _Sorted(self, *what)
        return SeenRows(self, found, window)


class _Sorted:
    """The rows of a table in one order that match one filter; shared by all pages that want these."""

    def __init__(self, table: Table, sort: tuple[str, ...], filter_: str) -> None:
        self._table = table
        self._sort = [(_place(table, name.removeprefix("-")), name.startswith("-")) for name in sort]
        self._matches = _filter(table, filter_)
        self._version = -1
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        """Return the rows as they are now."""
        if self._version != self._table.version:
            rows = self._table.rows()
            for matches in self._matches:
                rows = [row for row in rows if matches(row)]
            # Sorts are stable, so that the last one counts most; rows that are equal in all stay in the order of keys.
            for place, is_reversed in reversed(self._sort):
                rows.sort(key=lambda row, place=place: row[place], reverse=is_reversed)  # type: ignore[misc] # mypy infers no lambda with a default
            self._rows, self._version = rows, self._table.version
        return self._rows


class SeenRows(Subscription):
    """A page's window, and the rows that the page was sent last."""

    def __init__(self, table: Table, sorted_: _Sorted, window: Window) -> None:
        self._table = table
        self._sorted = sorted_
        self._window = window
        self._seen: list[Row] | None = None
        self._sizes: tuple[int, int] = (0, 0)
        self._at: float | None = None

    @property
    def keys(self) -> list[Key]:
        """The keys of the rows that the page was sent last."""
        return [row[: self._table.keys] for row in self._seen or []]

    def take(self) -> Part | None:
        """Return the rows of the window that differ from those sent last."""
        rows, first, seen = self._sorted.rows(), self._window.first, self._seen
        now = list(islice(rows, first, first + self._window.count))
        sizes = len(self._table), len(rows)
        part: Part = {}
        if seen is None:
            names = [column.name for column in self._table.columns]
            part = {"columns": names, "keys": self._table.keys, "first": first, "rows": now}
        else:
            if changed := [(place, row) for place, row in enumerate(now) if place >= len(seen) or row != seen[place]]:
                part["rows"] = changed
            if len(now) != len(seen):
                part["length"] = len(now)
        if seen is None or sizes != self._sizes:
            part["total"], part["matching"] = sizes
        if self._table.at != self._at:
            part["at"] = self._table.at
        self._seen, self._sizes, self._at = now, sizes, self._table.at
        return part or None


def _place(table: Table, name: str) -> int:
    if name not in table.places:
        raise UsageError(f"there is no column {name[:40]!r}")
    return table.places[name]


def _filter(table: Table, text: str) -> list[Callable[[Row], bool]]:
    """Return a test for each word of a filter.

    A word matches rows with a text that contains it, whatever its case. `column=text` looks at one column;
    `column>5`, `>=`, `<`, `<=` and `=` compare numbers. `-` before a word keeps the rows that do not match.
    """
    tests = []
    for word in text.split():
        is_not = len(word) > 1 and word.startswith("-")
        test = _test(table, word[1:] if is_not else word)
        tests.append(_opposite(test) if is_not else test)
    return tests


def _opposite(test: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: not test(row)


def _test(table: Table, word: str) -> Callable[[Row], bool]:
    found = _COMPARISON.fullmatch(word)
    if found is not None and found[1] in table.places:
        place = table.places[found[1]]
        if table.columns[place].kind == "number":
            return _comparison(found[1], place, found[2], found[3])
        if found[2] == "=":
            wanted = found[3].casefold()
            return lambda row: wanted in row[place].casefold()
    texts = [place for place, column in enumerate(table.columns) if column.kind == "text"]
    folded = word.casefold()
    return lambda row: any(folded in row[place].casefold() for place in texts)


def _comparison(name: str, place: int, sign: str, text: str) -> Callable[[Row], bool]:
    if text in ("", "-"):
        return lambda _: True  # the number is still being typed
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a number: compare {name} with one, as in {name}{sign}5") from None
    tests: dict[str, Callable[[Row], bool]] = {
        ">": lambda row: row[place] > number,
        ">=": lambda row: row[place] >= number,
        "<": lambda row: row[place] < number,
        "<=": lambda row: row[place] <= number,
        "=": lambda row: row[place] == number,
    }
    return tests[sign]
