"""Decoding messages of the keeper's queue, from any program."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import zstandard

from rabbitry._decode import json_decoder
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.messages import COMMAND, PAGE, Command, Document, Outcome, Report, Tick
from rabbitry.exceptions import Undecodable
from rabbitry.flow import Message

_PLAIN_FIELDS: Final = 3
"""The text before the page in the original crawler's form: `crawler|ID|ISO time|`."""
_decode_outcome: Final = json_decoder(Outcome)
_decode_report: Final = json_decoder(Report)
_decode_document: Final = json_decoder(Document)
_decode_command: Final[Any] = json_decoder(Command)  # type: ignore[arg-type] # a union is no type
_compress: Final = zstandard.ZstdCompressor(level=1).compress

_logger = logging.getLogger(__name__)


def decode(body: bytes, message: Message) -> Input | None:
    """Decode a message; return None for one without input for the keeper, such as a tick.

    A page of another program without its address is ignored; its document counts. Raises Undecodable.
    """
    kind = message.type
    if kind == "Outcome":
        outcome = _decode_outcome(body)
        at = _past(outcome.at)
        return outcome if at == outcome.at else msgspec.structs.replace(outcome, at=at)
    if kind == "Report":
        return _decode_report(body)
    if kind == "Document":
        document = _decode_document(body)
        at, fetched_at = _past(document.at), _past(document.fetched_at)
        is_past = (at, fetched_at) == (document.at, document.fetched_at)
        return document if is_past else msgspec.structs.replace(document, at=at, fetched_at=fetched_at)
    if kind == COMMAND:
        command: Command = _decode_command(body)
        return None if isinstance(command, Tick) else Asked(command, message.id)
    if "x-rabbitry-url" in message.headers:
        return _page(body, message)
    return None


def _page(body: bytes, message: Message) -> Page | None:
    headers = message.headers
    url = headers["x-rabbitry-url"]
    if not isinstance(url, str):
        raise Undecodable("the header x-rabbitry-url of a page is not text")
    if message.type != PAGE or message.content_encoding != "zstd":
        parts = body.split(b"|", _PLAIN_FIELDS)
        is_plain = len(parts) > _PLAIN_FIELDS and parts[0] == b"crawler"
        body = _compress(parts[_PLAIN_FIELDS] if is_plain else body)
    return Page(
        url=url,
        fetched_at=_past(_time(headers.get("x-rabbitry-fetched-at"), message)),
        body=body,
        final_url=_text(headers, "x-rabbitry-final-url"),
        status=_number(headers, "x-rabbitry-status", 200),
        crawler=_text(headers, "x-rabbitry-crawler"),
        batch=_text(headers, "x-rabbitry-batch"),
        purpose="sitemap" if headers.get("x-rabbitry-purpose") == "sitemap" else "page",
        content_type=message.content_type or "",
        headers=_table(headers.get("x-rabbitry-origin-headers")),
        size=_number(headers, "x-rabbitry-size", 0),
        wire=_number(headers, "x-rabbitry-wire", 0),
    )


def _text(headers: Mapping[str, FieldValue], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _number(headers: Mapping[str, FieldValue], name: str, default: int) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 50 else default


def _past(at: float) -> float:
    """Return the time if it is in the past, else now: after a time in the future, all later input would look older."""
    return min(max(at, 0.0), time.time())


def _time(value: object, message: Message) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            _logger.debug("a page was fetched at %r, which is not a time", value)
        else:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return message.timestamp.timestamp() if message.timestamp is not None else datetime.now(UTC).timestamp()


def _table(value: object) -> dict[str, str]:
    """Return the origin's headers in lower case; values that are not text are left out."""
    if not isinstance(value, Mapping):
        return {}
    return {str(name).lower(): text for name, text in value.items() if isinstance(text, str)}
