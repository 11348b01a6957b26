"""Making a message's headers fit into one frame, as AMQP requires.

The traceback and the error text, which Rabbitry adds, are shortened first. Then headers of other programs are removed,
the largest first. A header is removed as a whole, since a part of its value would be another value; `x-rabbitry-cut`
names the removed headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rabbitry._errors import sendable
from rabbitry.amqp.protocol.properties import Properties, header_size
from rabbitry.amqp.protocol.tables import FieldValue, Table, encode_table
from rabbitry.exceptions import UsageError

ERROR: Final = "x-rabbitry-error"
TRACEBACK: Final = "x-rabbitry-traceback"
CUT: Final = "x-rabbitry-cut"
"""Names and sizes of the headers that were cut."""

_GIVEN_ID: Final = 40
"""Bytes of the message id that the client gives if there is none, and some to spare."""
_LEAST_ERROR: Final = 250
"""Bytes of an error's text that are kept, even if headers of other programs have to be cut for them."""
_LONGEST_CUT: Final = 200
_CUT_FIELD: Final = len(CUT) + 6 + _LONGEST_CUT


def fit(
    properties: Properties,
    foreign: Mapping[str, FieldValue],
    own: Mapping[str, FieldValue],
    limit: int,
    *,
    error: str | None = None,
    trace: str = "",
) -> Properties:
    """Return `properties` with headers that take at most `limit` bytes with everything else in the content header.

    Args:
        properties: The message's properties; their headers are replaced.
        foreign: Headers of other programs. Those that AMQP can't carry are removed too.
        own: Rabbitry's headers. They replace equal ones of `foreign` and are never removed.
        limit: Bytes of a frame's payload.
        error: An error's text, for a dead letter. Its end is cut off.
        trace: An error's traceback, if `error` is given. Its beginning is cut off.

    Returns:
        The properties with all headers.
    """
    texts: dict[str, FieldValue] = {} if error is None else {ERROR: "", TRACEBACK: ""}
    written = {**own, **texts}
    foreign = {name: value for name, value in foreign.items() if name not in written}
    before = foreign.pop(CUT, "")
    room = limit - header_size(properties._replace(headers=written))
    if properties.message_id is None:
        room -= _GIVEN_ID
    least = min(len((error or "").encode()), _LEAST_ERROR)
    kept, cut = _within(foreign, room - least - (_CUT_FIELD if before else 0))
    if cut or before:
        room -= _CUT_FIELD
        kept, cut = _within(foreign, room - least)
        written[CUT] = _named(cut, before if isinstance(before, str) else "")
    if error is not None:
        room -= _size(kept)
        written[ERROR] = _first(error, room)
        written[TRACEBACK] = _last(trace, room - len(str(written[ERROR]).encode()))
    return properties._replace(headers={**kept, **written})


def _within(headers: Table, room: int) -> tuple[dict[str, FieldValue], dict[str, int]]:
    """Return the headers that fit `room` bytes, and the sizes of those that are cut."""
    kept, sizes, cut = dict(headers), {}, {}
    for name, value in headers.items():
        try:
            sizes[name] = _size({name: value})
        except UsageError:
            cut[name] = 0
            del kept[name]
    total = sum(sizes.values())
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if total <= room:
            break
        total -= sizes[name]
        cut[name] = sizes[name]
        del kept[name]
    return kept, cut


def _size(headers: Table) -> int:
    return len(encode_table(headers)) - 4


def _named(cut: Mapping[str, int], before: str) -> str:
    """Return the names of the removed headers, those that were removed earlier first."""
    shown = _first(before, _LONGEST_CUT - 40)
    for number, (name, size) in enumerate(cut.items()):
        why = f"{size} bytes" if size else "can't be encoded"
        more = f"{sendable(name[:60])} ({why})"
        if len(shown.encode()) + len(more.encode()) > _LONGEST_CUT - 30:
            return f"{shown} and {len(cut) - number} more"
        shown += f", {more}" if shown else more
    return shown


def _first(text: str, size: int) -> str:
    """Return the beginning of `text`, of at most `size` bytes."""
    return text.encode()[: max(size, 0)].decode(errors="ignore")


def _last(text: str, size: int) -> str:
    """Return the end of `text`, of at most `size` bytes."""
    return text.encode()[-size:].decode(errors="ignore") if size > 0 else ""
