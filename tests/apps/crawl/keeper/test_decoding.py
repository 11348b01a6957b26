"""Messages of the keeper's queue, from peers whose clocks or programs are wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from rabbitry.apps.crawl.keeper.decoding import decode
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.messages import Document, Outcome
from rabbitry.exceptions import Undecodable
from rabbitry.flow import Message
from tests.apps.crawl.processor._messages import message, packed


def _message(kind: str, **headers: str) -> Message:
    return replace(message(headers), type=kind)


@pytest.mark.parametrize("at", [-1e308, -1.0, 1e308, 4e9])
def test_times_in_the_future_or_before_1970_are_replaced(at: float) -> None:
    outcome = decode(msgspec.json.encode(Outcome("b", "http://a/", "unchanged", at, "c1")), _message("Outcome"))
    assert isinstance(outcome, Outcome)
    document = decode(msgspec.json.encode(Document("http://a/", at, "p1", fetched_at=at)), _message("Document"))
    assert isinstance(document, Document)
    assert all(0 <= found <= time.time() for found in (outcome.at, document.at, document.fetched_at))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "yesterday", ""])
def test_a_page_was_fetched_at_a_time_that_can_be_told(text: str) -> None:
    given = _message("Page", **{"x-rabbitry-url": "http://a/", "x-rabbitry-fetched-at": text})
    page = decode(packed("<p>"), given)
    assert isinstance(page, Page)
    assert 0 <= page.fetched_at <= time.time()
    assert datetime.fromtimestamp(page.fetched_at, UTC) <= datetime.now(UTC)


def test_a_past_time_is_kept() -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    given = _message("Page", **{"x-rabbitry-url": "http://a/", "x-rabbitry-fetched-at": at.isoformat()})
    page = decode(packed("<p>"), given)
    assert isinstance(page, Page)
    assert page.fetched_at == at.timestamp()


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"{}", b"null", b'{"batch":1e999}'])
@pytest.mark.parametrize("kind", ["Outcome", "Report", "Document", "Command"])
def test_malformed_messages_are_undecodable(kind: str, body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(body, _message(kind))
