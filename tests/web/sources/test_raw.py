"""Raw messages of an exchange, on both brokers: masked, sampled, in a queue that goes with the page."""

import asyncio
import base64
import json
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Properties, parse_url
from rabbitry.exceptions import UsageError
from rabbitry.telemetry import MASK, Masking
from rabbitry.web.feed.topics import Subscription
from rabbitry.web.sources.raw import MOST, SHOWN, RawTopic
from tests.support.waiting import eventually

_EVIL = "<img src=x onerror=alert(1)>"


class _Page:
    """A page that subscribes, and what it was told."""

    def __init__(self, topic: RawTopic, **params: str) -> None:
        self.subscription: Subscription = topic.subscribe(params, lambda: None)
        self.value: dict[str, Any] = {}

    def see(self) -> dict[str, Any]:
        part = self.subscription.take() or {}
        self.value |= part.get("value", {}) | part.get("set", {})
        return self.value


def _body(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message["payload"])


async def _publish(channel: Channel, body: bytes, **headers: Any) -> None:
    properties = Properties(headers=headers, message_id="m1")
    await channel.publish(body, exchange="watched", routing_key="a.b", properties=properties, mandatory=False)


async def test_messages_are_shown_with_their_secrets_masked(broker_url: str, no_leaks: None) -> None:
    topic = RawTopic(parse_url(broker_url), Masking(["password", "secret", "pin"]))
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("watched", "topic", durable=True)
        page = _Page(topic, exchange="watched", key="a.*")
        await eventually(lambda: page.see().get("state") == "live", "the watch")
        await _publish(channel, json.dumps({"name": _EVIL, "password": "hunter2"}).encode(), pin="hunter2", n=1)
        await _publish(channel, b"\xff\x00")
        await _publish(channel, b"secret=hunter2 text")
        await eventually(lambda: page.see()["seen"] == 3, "three messages")
        text, binary, masked = page.value["messages"]
        assert json.loads(_body(masked)) == {"name": _EVIL, "password": MASK}
        assert masked["properties"]["headers"] == {"pin": MASK, "n": 1}
        assert masked["properties"]["message_id"] == "m1"
        assert (binary["is_hidden"], binary["payload"], binary["payload_bytes"]) == (True, "", 2)
        assert _body(text) == f"secret={MASK} text".encode()
        for number in range(200):
            await _publish(channel, b"%d" % number)
        await eventually(lambda: _body(page.see()["messages"][0]) == b"199", "the newest, for which older ones go")
        assert page.value["seen"] < 203
        assert len(page.value["messages"]) <= SHOWN
        topic.unsubscribe(page.subscription)
        await eventually(lambda: not topic.ending, "that its queue and connection are gone")


async def test_the_chosen_names_are_masked_and_no_others(embedded_url: str, no_leaks: None) -> None:
    topic = RawTopic(parse_url(embedded_url), Masking(["iban"]))
    async with rabbitry.connect(embedded_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("watched", "topic", durable=True)
        page = _Page(topic, exchange="watched")
        await eventually(lambda: page.see().get("state") == "live", "the watch")
        await _publish(channel, b'{"iban": "CH93", "token": "free"}', IBAN="CH93")
        await eventually(lambda: page.see()["seen"] == 1, "the message")
        (message,) = page.value["messages"]
        assert json.loads(_body(message)) == {"iban": MASK, "token": "free"}
        assert message["properties"]["headers"] == {"IBAN": MASK}
        topic.unsubscribe(page.subscription)
        await eventually(lambda: not topic.ending, "that its queue and connection are gone")


async def test_what_cannot_be_watched_is_told(broker_url: str, no_leaks: None) -> None:
    topic = RawTopic(parse_url(broker_url), Masking(["password", "secret", "pin"]))
    for params in ({"exchange": ""}, {}, {"exchange": "x" * 300}, {"exchange": "a", "other": 1}):
        with pytest.raises(UsageError):
            topic.subscribe(params, lambda: None)
    pages = [_Page(topic, exchange="nobody") for _ in range(MOST)]
    with pytest.raises(UsageError, match="close one"):
        _Page(topic, exchange="nobody")
    await eventually(lambda: pages[0].see()["state"] == "failed", "that there is no such exchange")
    assert "nobody" in pages[0].value["reason"]
    for page in pages:
        topic.unsubscribe(page.subscription)
    await eventually(lambda: not topic.ending, "that all are gone")
    await asyncio.sleep(0)
