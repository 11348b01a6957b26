"""Messages to processors, for tests."""

from __future__ import annotations

from collections.abc import Mapping

import zstandard

from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.crawl.processor.stage import processed
from rabbitry.flow import Message, Outgoing

URL = "http://site.example/dir/page"
AT = 1_790_000_000.0


def message(
    headers: Mapping[str, FieldValue] | None = None, *, attempt: int = 1, encoding: str | None = None
) -> Message:
    return Message(
        id="1",
        correlation_id="1",
        attempt=attempt,
        stage="processor",
        queue="proc",
        exchange="exchtopic",
        routing_key="rproc",
        timestamp=None,
        type="Page",
        content_type=None,
        content_encoding=encoding,
        app_id=None,
        headers=headers or {},
    )


def page_message(
    content_type: str = "text/html; charset=utf-8",
    *,
    url: str = URL,
    final_url: str | None = None,
    purpose: str | None = None,
    origin: Mapping[str, FieldValue] | None = None,
) -> Message:
    """Return the metadata of a page as Rabbitry's crawlers publish it."""
    headers: dict[str, FieldValue] = {
        "x-rabbitry-url": url,
        "x-rabbitry-final-url": final_url or url,
        "x-rabbitry-status": 200,
        "x-rabbitry-fetched-at": "2026-09-21T14:13:20.000+00:00",
        "x-rabbitry-crawler": "c0ffee",
        "x-rabbitry-origin-headers": {"content-type": content_type, **(origin or {})},
    }
    if purpose is not None:
        headers["x-rabbitry-purpose"] = purpose
    return message(headers, encoding="zstd")


def packed(body: bytes | str) -> bytes:
    """Compress a page as crawlers do."""
    return zstandard.ZstdCompressor(level=1).compress(body.encode() if isinstance(body, str) else body)


def documents_of(body: bytes | str, given: Message) -> list[Document]:
    """Process a page, check its log line, and return its documents."""
    data = body.encode() if isinstance(body, str) else body
    values = list(
        processed(packed(data) if given.content_encoding == "zstd" else data, given, Node("processor", "abc"))
    )
    assert isinstance(values[-1], Outgoing)
    assert values[-1].key == "rlog"
    assert str(values[-1].value).startswith("processor|abc|")
    documents = [outgoing.value for outgoing in values[:-1]]
    assert documents
    return [document for document in documents if isinstance(document, Document)]


def document_of(body: bytes | str, given: Message | None = None) -> Document:
    """Process a page that gives one document; return it."""
    (document,) = documents_of(body, given or page_message())
    return document
