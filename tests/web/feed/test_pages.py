"""What a page says and gets over the feed, without a socket; tests/web/test_feed.py has one."""

import json

import pytest

from rabbitry.runtime.http.pages import PEER_PAGE_LIMIT, TooManyPages
from rabbitry.web.feed.pages import MOST_SUBSCRIPTIONS, Feed
from rabbitry.web.feed.tables import Column, Table
from rabbitry.web.feed.topics import Value


def _feed() -> tuple[Feed, Value, Table]:
    value, table = Value({"state": "live"}), Table([Column("name")], keys=1)
    return Feed({"broker": value, "queues": table}, clock=lambda: 7.0), value, table


def test_a_subscription_is_numbered_and_starts_anew() -> None:
    feed, value, _ = _feed()
    with feed.page() as page:
        page.receive('{"open": 4, "topic": "broker"}')
        whole = {"id": 4, "seq": 1, "value": {"state": "live"}}
        assert page.take() == {"now": 7.0, "parts": [whole]}
        assert page.take() == {"now": 7.0}
        value.put({"state": "away"}, 1.0)
        assert page.take() == {"now": 7.0, "parts": [{"id": 4, "seq": 2, "set": {"state": "away"}, "at": 1.0}]}
        page.receive('{"open": 4, "topic": "broker"}')
        assert page.take() == {"now": 7.0, "parts": [{"id": 4, "seq": 1, "value": {"state": "away"}, "at": 1.0}]}
        page.receive('{"close": 4}')
        value.put({"state": "live"}, 2.0)
        assert page.take() == {"now": 7.0}
    assert not value.wanted.is_set()


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("nonsense", 0),
        ("[]", 0),
        ('"\ud800"', 0),
        ('{"open": 3, "topic": "nothing"}', 3),
        ('{"open": 3, "topic": "queues", "params": {"count": -1}}', 3),
        ('{"open": 3, "topic": "queues", "params": []}', 0),
    ],
)
def test_messages_that_make_no_sense_are_answered(message: str, number: int) -> None:
    feed, *_ = _feed()
    with feed.page() as page:
        page.receive(message)
        answer = page.take()
        assert isinstance(answer, dict)
        (part,) = answer["parts"]
        assert part["id"] == number
        assert part["error"]


def test_subscriptions_and_pages_are_bounded() -> None:
    feed, *_ = _feed()
    with feed.page() as page:
        for number in range(3 * MOST_SUBSCRIPTIONS):
            page.receive(json.dumps({"open": number, "topic": "broker"}))
        answer = page.take()
        assert isinstance(answer, dict)
        assert len([part for part in answer["parts"] if "value" in part]) == MOST_SUBSCRIPTIONS
        assert len(answer["parts"]) == 2 * MOST_SUBSCRIPTIONS
    opened = [feed.page("192.0.2.1") for _ in range(PEER_PAGE_LIMIT)]
    for each in opened:
        each.__enter__()
    with pytest.raises(TooManyPages), feed.page("192.0.2.1"):
        pass
    for each in opened:
        each.__exit__(None, None, None)


async def test_a_page_is_woken_by_changes() -> None:
    feed, _, table = _feed()
    with feed.page() as page:
        page.receive('{"open": 1, "topic": "queues"}')
        await page.wait()
        page.take()
        assert not page._wake.is_set()
        table.replace([("a",)], 1.0)
        await page.wait()
        answer = page.take()
        assert isinstance(answer, dict)
        assert answer["parts"][0]["rows"] == [(0, ("a",))]
