"""Changes of queues that Rabbitry's own broker pushes: what its management API answers, as rows of the table."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from rabbitry._decode import json_decoder
from rabbitry.web.feed.tables import Key, Row
from rabbitry.web.sources.lists import queue_row

_RATES = ("publish", "deliver_get", "ack")


class _Answer(msgspec.Struct):
    """What the API answers. whole: everything known before is void. columns: the names of a row's members."""

    version: int
    whole: bool
    columns: list[str]
    rows: list[list[Any]]
    gone: list[tuple[str, str]]


class News(NamedTuple):
    """Rows that are new or differ, and the keys of those that are gone."""

    version: int
    whole: bool
    rows: list[Row]
    gone: list[Key]


_decode = json_decoder(_Answer)


def read_changes(body: bytes) -> News:
    """Read an answer. Raises Undecodable."""
    answer = _decode(body)
    rows = [_row(dict(zip(answer.columns, row, strict=False))) for row in answer.rows]
    return News(answer.version, answer.whole, rows, [*answer.gone])


def _row(queue: dict[str, Any]) -> Row:
    queue["message_stats"] = {f"{name}_details": {"rate": queue.get(f"{name}_rate")} for name in _RATES}
    held = (queue.get("messages_ready"), queue.get("messages_unacknowledged"))
    queue["messages"] = sum(number for number in held if isinstance(number, int))
    return queue_row(queue)
