"""Lists as answers: filtered, sorted, paged and encoded in slices, so that no list blocks the broker's clients.

Only the objects shown are built: names and sort keys are read from the broker's objects where possible.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar, cast

from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rabbitry.broker._management.call import Answer, Call, bad, found_in, number, only
from rabbitry.broker._management.encoding import Json, encode
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._patterns import Pattern
from rabbitry.exceptions import UsageError

T = TypeVar("T")
_MOST_PAGE: Final = 500
_RUN: Final = 500
"""Keys sorted in one step, which takes about 1 ms."""
_CHUNK: Final = 1 << 16
"""Bytes of an answer that are sent at once; its last object may exceed them."""


class Listed(NamedTuple, Generic[T]):
    """The objects of a list, the function that shows one, and fields that can be read without calling it.

    order: the fields by which RabbitMQ sorts them. has_pages: whether RabbitMQ pages this list.
    """

    items: Sequence[T]
    view: Callable[[T], Json]
    fields: Mapping[str, Callable[[T], object]] = {}
    order: tuple[str, ...] = ("vhost", "name")
    has_pages: bool = False

    def getter(self, path: str) -> Callable[[T], object]:
        """Return a function that returns one field of an object, None if it has no such field."""
        name, _, rest = path.partition(".")
        field = self.fields.get(name)
        if field is None:
            return lambda item: found_in(self.view(item), path)
        if not rest:
            return field
        return lambda item: found_in({name: field(item)}, path)

    def with_columns(self, columns: str) -> Callable[[T], Json | list[object]]:
        """Return a function that shows only these fields of an object."""
        names = {column.partition(".")[0] for column in columns.split(",")}
        view = self.view
        if names <= self.fields.keys():

            def view(item: T) -> Json:
                return {name: self.fields[name](item) for name in names}

        return lambda item: only(view(item), columns) or []  # RabbitMQ shows an object without fields as a list


class _Page(NamedTuple):
    """A requested page, and the filter on names that applies to all pages."""

    number: int
    size: int
    name: str
    is_regex: bool


async def answer(call: Call, listed: Listed[T]) -> Response:
    """Answer with a list, by the query's sort, sort_reverse, columns, page, page_size, name and use_regex."""
    query = call.request.query_params
    page = _page(query) if listed.has_pages and "page" in query else None
    head, tail = b"[", b"]"
    async with call.pace as pace:
        items = listed.items
        if page is not None and page.name:
            items = await _named(listed, page, pace)
        count = len(items)
        upto = count
        if page is not None:
            upto = page.number * page.size
            head, tail = _frame(page, len(listed.items), count)
        items = await _sorted(items, listed, query, upto, pace)
        if page is not None:
            items = items[upto - page.size : upto]
        columns = query.get("columns")
        view = listed.view if columns is None else listed.with_columns(columns)
        chunks = await encoded(items, view, pace)
    return streamed([head, *chunks, tail])


async def encoded(items: Iterable[T], view: Callable[[T], object], pace: Pace) -> list[bytes]:
    """Return objects as pieces of JSON separated by commas. The caller holds `pace`."""
    chunks: list[bytes] = []
    piece = bytearray()
    for item in items:
        piece += encode(view(item))
        piece += b","
        if len(piece) >= _CHUNK:
            chunks.append(bytes(piece))
            piece.clear()
        if pace.is_over:
            await pace.rest()
    if piece:
        chunks.append(bytes(piece))
    if chunks:
        chunks[-1] = chunks[-1][:-1]  # the last comma
    return chunks


class _Pieces(Response):
    """An answer that is sent piece by piece, as fast as the client reads it.

    Starlette's StreamingResponse imports anyio's loop at the first answer, which takes 25 ms.
    """

    def __init__(self, chunks: list[bytes], media_type: str) -> None:
        self._chunks = chunks
        size = sum(map(len, chunks))
        super().__init__(media_type=media_type, headers={"content-length": str(size)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # `send` returns at once while the socket has room
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def streamed(chunks: list[bytes], media_type: str = "application/json") -> Response:
    """Return an answer, which is sent piece by piece if it is long."""
    if sum(map(len, chunks)) < _CHUNK:
        return Response(b"".join(chunks), media_type=media_type)
    return _Pieces(chunks, media_type)


def _page(query: QueryParams) -> _Page:
    wrong = "Pagination parameters are invalid"
    at, size = number(query["page"], wrong), number(query.get("page_size", "100"), wrong)
    if at < 1 or not 1 <= size <= _MOST_PAGE:
        text = f"Invalid pagination parameters: page number {at}, page size {query.get('page_size', 'undefined')}"
        raise Answer(400, "invalid_pagination_parameters", text)
    return _Page(at, size, query.get("name", ""), query.get("use_regex") == "true")


def _frame(page: _Page, total: int, filtered: int) -> tuple[bytes, bytes]:
    """Return the JSON before and after the objects of a page. Raises Answer if there is no such page."""
    pages = -(-filtered // page.size)
    if page.number > max(pages, 1):
        text = f"Page out of range, page: {page.number} page size: {page.size}, len: {filtered}"
        raise Answer(400, "page_out_of_range", text)
    head = {
        "filtered_count": filtered,
        "item_count": max(0, min(page.size, filtered - (page.number - 1) * page.size)),
        "page": page.number,
        "page_count": pages,
        "page_size": page.size,
        "total_count": total,
    }
    return encode(head)[:-1] + b',"items":[', b"]}"


async def _named(listed: Listed[T], page: _Page, pace: Pace) -> list[T]:
    """Return the objects whose names contain a text, or match a regular expression, ignoring case."""
    found: list[T] = []
    is_wanted = _predicate(page)
    name = listed.getter("name")
    for item in listed.items:
        try:
            if is_wanted(str(name(item))):
                found.append(item)
        except TimeoutError as error:
            raise bad("the regular expression of name takes too long") from error
        if pace.is_over:
            await pace.rest()
    return found


def _predicate(page: _Page) -> Callable[[str], bool]:
    if not page.is_regex:
        wanted = page.name.lower()
        return lambda name: wanted in name.lower()
    try:
        return Pattern(page.name, ignore_case=True).finder()
    except UsageError as error:
        raise bad("Pagination parameters are invalid") from error


async def _sorted(items: Sequence[T], listed: Listed[T], query: QueryParams, upto: int, pace: Pace) -> Sequence[T]:
    """Return the first `upto` objects in order: runs are sorted, then merged as far as needed."""
    sort, is_reversed = query.get("sort"), query.get("sort_reverse") == "true" and "sort" in query
    getters = [listed.getter(path) for path in (listed.order if sort is None else (sort, *listed.order))]
    # A key is one flat tuple of ranks, values and the place: nested tuples would trigger the garbage collector.
    runs: list[list[tuple[object, ...]]] = []
    for start in range(0, len(items), _RUN):
        run = []
        for place in range(start, min(start + _RUN, len(items))):
            key: list[object] = []
            for value_of in getters:
                key += _rank(value_of(items[place]))
            run.append((*key, place))
            if pace.is_over:
                await pace.rest()
        run.sort(reverse=is_reversed)  # values of equal ranks can be compared
        runs.append(run)
        await pace.rest()
    found: list[T] = []
    for *_, last in heapq.merge(*runs, reverse=is_reversed):
        if len(found) >= upto:
            break
        found.append(items[cast("int", last)])
        if pace.is_over:
            await pace.rest()
    return found


def _rank(value: object) -> tuple[int, object]:
    """Return a sort key that orders values of all types as Erlang does: numbers, atoms, other values, strings."""
    if isinstance(value, bool) or value is None:
        return 1, "undefined" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return 0, value
    return (3, value) if isinstance(value, str) else (2, str(value))
