"""Confirms and returns in every order that a broker may send them in, from a scripted broker."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import rabbitry
from rabbitry import Receipt
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.methods import ChannelClose, ConnectionBlocked, ConnectionClose, ConnectionUnblocked
from rabbitry.amqp.protocol.properties import encode_header
from rabbitry.exceptions import (
    ConnectionClosed,
    InternalError,
    PreconditionFailed,
    ProtocolViolation,
    PublishRefused,
    PublishReturned,
    PublishTimeout,
)
from tests.support import logs
from tests.support.scripted import ScriptedBroker, ScriptedLink
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


@asynccontextmanager
async def _publishing(
    count: int, body: Callable[[int], bytes] = b"%d".__mod__
) -> AsyncIterator[tuple[ScriptedBroker, Channel, list[Receipt]]]:
    """A channel that has sent `count` messages, all of them with the broker."""
    async with ScriptedBroker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        same = rabbitry.Properties(message_id="equal")
        futures = [await channel.send(body(n), routing_key="q", properties=same) for n in range(count)]
        await eventually(lambda: len(broker.links[0].published) == count, "all messages")
        yield broker, channel, futures


async def _outcomes(futures: list[Receipt]) -> list[str]:
    async with asyncio.timeout(90):
        results = await asyncio.gather(*futures, return_exceptions=True)
    return ["confirmed" if result is None else type(result).__name__ for result in results]


async def test_confirms_in_the_order_that_rabbitmq_was_seen_to_send() -> None:
    async with _publishing(30) as (broker, channel, futures):
        peer = broker.links[0]
        for tag in (2, *range(5, 30)):
            peer.ack(tag)
        await asyncio.gather(futures[1], *futures[4:29])
        assert [n + 1 for n, future in enumerate(futures) if not future.done()] == [1, 3, 4, 30]
        for tag in (3, 30, 1, 4):
            peer.ack(tag)
            await futures[tag - 1]
        await channel.wait_for_confirms(timeout=90)


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_settles_each_message_by_its_own_tag_alone(seed: int) -> None:
    """Acks, nacks and returns, each or many at once, against a model; a second outcome for one message is ignored."""
    chance = random.Random(seed)
    count = 200
    async with _publishing(count) as (broker, channel, futures):
        peer = broker.links[0]
        expected: dict[int, str] = {}
        returned = set()
        open_tags = list(range(1, count + 1))
        while open_tags:
            tag = chance.choice(open_tags)
            kind, multiple = chance.choice(["ack", "ack", "ack", "nack", "return"]), chance.random() < 0.05
            if kind == "return":
                if tag not in returned:
                    peer.give_back(tag)
                    returned.add(tag)
                continue
            (peer.ack if kind == "ack" else peer.nack)(tag, multiple=multiple)
            outcome = "confirmed" if kind == "ack" else "PublishRefused"
            for settled in [known for known in open_tags if known == tag or (multiple and known < tag)]:
                expected[settled] = "PublishReturned" if settled in returned else outcome
                open_tags.remove(settled)
        assert await _outcomes(futures) == [expected[tag] for tag in range(1, count + 1)]
        failures = [name for name in expected.values() if name != "confirmed"]
        if failures:
            with pytest.raises(ExceptionGroup) as group:
                await channel.wait_for_confirms(timeout=90)
            assert sorted(type(error).__name__ for error in group.value.exceptions) == sorted(failures)


@pytest.mark.parametrize("seed", range(10))
async def test_equal_messages_returned_among_confirmed_ones(seed: int) -> None:
    """A return carries no tag: as many messages fail as were returned; equal ones are interchangeable.

    A channel routes messages in order, so returns are in order; confirms are not.
    """
    chance = random.Random(seed)
    async with _publishing(60, lambda n: b"equal %d" % (n % 3)) as (broker, _, futures):
        peer = broker.links[0]
        unroutable = [tag for tag in range(1, 61) if chance.random() < 0.4]
        returns = [sum((tag - 1) % 3 == kind for tag in unroutable) for kind in range(3)]
        open_tags = list(range(1, 61))
        while open_tags:
            tag = chance.choice(open_tags)
            while unroutable and unroutable[0] <= tag:
                peer.give_back(unroutable.pop(0))
            peer.ack(tag)
            open_tags.remove(tag)
        outcomes = await _outcomes(futures)
        assert set(outcomes) == {"confirmed", "PublishReturned"}
        assert [outcomes[kind::3].count("PublishReturned") for kind in range(3)] == returns


@pytest.mark.parametrize(
    "changed",
    [
        rabbitry.Properties(message_id="b", headers={"added": "by an interceptor"}, delivery_mode=2),
        rabbitry.Properties(message_id="b"),
        rabbitry.Properties(message_id="another", delivery_mode=2),
        rabbitry.Properties(),
    ],
)
async def test_a_return_with_changed_properties_is_matched_by_id_or_body(changed: rabbitry.Properties) -> None:
    async with ScriptedBroker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        futures = [
            await channel.send(name.encode(), routing_key="q", properties=rabbitry.Properties(message_id=name))
            for name in "abc"
        ]
        peer = broker.links[0]
        await eventually(lambda: len(peer.published) == 3, "all messages")
        peer.published[1] = "", "q", encode_header(changed, 1), b"b"
        peer.give_back(2)
        with pytest.raises(PublishReturned):
            await futures[1]
        peer.ack(3, multiple=True)
        assert await _outcomes(futures) == ["confirmed", "PublishReturned", "confirmed"]


async def test_a_return_that_matches_nothing_is_logged_once_and_its_confirm_settles_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with _publishing(3) as (broker, channel, futures):
        peer = broker.links[0]
        sent = peer.published[:]
        for tag, (_, _, header, body) in enumerate(sent, 1):
            peer.published[tag - 1] = "", "another key", header, body
            peer.give_back(tag)
        peer.ack(3, multiple=True)
        assert await _outcomes(futures) == ["confirmed"] * 3
        assert channel.is_open
        assert [record.levelname for record in logs.records(caplog)] == ["WARNING"]
        assert "routing key 'another key', message id b'equal'" in caplog.text


async def test_a_malformed_return_is_a_violation() -> None:
    async with _publishing(2) as (broker, channel, futures):
        broker.links[0].driver.write(b"\x01\0\x01\0\0\0\x07\0\x3c\0\x32\x01\x38\xff\xce")
        broker.links[0].driver.write(hot.encode_content(1, hot.encode_header(0, 0, b""), b"", 0))
        assert set(await _outcomes(futures)) == {"BadSyntax"}
        assert isinstance(channel.close_reason, ConnectionClosed)
        assert isinstance(channel.close_reason.__cause__, ProtocolViolation)


async def test_a_confirm_for_an_unknown_tag_is_ignored() -> None:
    async with _publishing(3) as (broker, channel, futures):
        peer = broker.links[0]
        for tag in (9, 2, 2, 0):
            peer.ack(tag)
        await futures[1]
        assert not futures[0].done()
        assert not futures[2].done()
        peer.ack(3, multiple=True)
        await channel.wait_for_confirms(timeout=90)


async def _lost(broker: ScriptedBroker) -> ScriptedLink:
    """The link that recovery opens."""
    await eventually(lambda: len(broker.links) == 2, "the new link")
    return broker.links[1]


@pytest.mark.parametrize("code", [0, 320, 541])
async def test_only_unconfirmed_messages_are_resent_in_order(code: int) -> None:
    async with _publishing(10) as (broker, channel, futures):
        peer = broker.links[0]
        for tag in (3, 7, 1):
            peer.ack(tag)
        peer.nack(5)
        peer.give_back(6)
        if code:
            peer.send(0, ConnectionClose(code, "on its way down", 0, 0))
        else:
            await eventually(lambda: futures[5].done(), "the return")
            peer.driver.abort()
        again = await _lost(broker)
        # 6 was returned: its sender knows, so it is not resent
        await eventually(lambda: len(again.published) == 5, "what is sent again")
        assert [body for *_, body in again.published] == [b"1", b"3", b"7", b"8", b"9"]
        assert [header for *_, header, _ in again.published] == [peer.published[n][2] for n in (1, 3, 7, 8, 9)]
        again.ack(5)  # delivery tags start again at 1: this is the last
        await futures[9]
        assert not futures[4].cancelled()
        assert [n for n in range(10) if not futures[n].done()] == [1, 3, 7, 8]
        again.ack(4, multiple=True)
        outcomes = await _outcomes(futures)
        assert outcomes[4:6] == ["PublishRefused", "PublishReturned"]
        assert outcomes.count("confirmed") == 8
        assert channel.is_open


@pytest.mark.parametrize("close", [ConnectionClose(504, "CHANNEL_ERROR", 0, 0), ConnectionClose(530, "NOT_ALLOWED")])
async def test_any_other_close_fails_unconfirmed_messages_with_its_cause(close: ConnectionClose) -> None:
    async with _publishing(6) as (broker, channel, futures):
        peer = broker.links[0]
        peer.ack(2)
        peer.send(0, close)
        async with asyncio.timeout(90):
            results = await asyncio.gather(*futures, return_exceptions=True)
        failed = [error for error in results if error is not None]
        assert results[1] is None
        assert len(failed) == 5
        assert all(isinstance(error, ConnectionClosed) and error.reply_code == close.reply_code for error in failed)
        assert not channel.is_open
        assert len(broker.links) == 1


async def test_a_406_in_the_middle_of_a_window_fails_the_rest_and_the_channel_opens_again() -> None:
    async with _publishing(10) as (broker, channel, futures):
        peer = broker.links[0]
        for tag in (4, 2):
            peer.ack(tag)
        peer.send(1, ChannelClose(406, "PRECONDITION_FAILED - unknown delivery tag 9", 60, 80))
        outcomes = await _outcomes(futures)
        assert [n + 1 for n, outcome in enumerate(outcomes) if outcome == "confirmed"] == [2, 4]
        assert outcomes.count(PreconditionFailed.__name__) == 8
        assert channel._core.session.is_open
        await channel.open()
        again = await channel.send(b"again", routing_key="q")
        await eventually(lambda: len(peer.published) == 11, "the message after")
        peer.ack(1)
        await again


async def test_a_late_message_keeps_its_place_and_is_never_resent() -> None:
    async with ScriptedBroker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        with pytest.raises(PublishTimeout, match="unknown"):
            await channel.publish(b"late", routing_key="q", timeout=0.05)
        in_time = await channel.send(b"in time", routing_key="q")
        await eventually(lambda: len(broker.links[0].published) == 2, "both")
        broker.links[0].driver.abort()
        again = await _lost(broker)
        await eventually(lambda: again.published, "what is sent again")
        assert [body for *_, body in again.published] == [b"in time"]
        again.ack(1)
        await in_time


async def test_a_blocked_connection_sends_nothing_new_until_it_is_unblocked() -> None:
    async with _publishing(1) as (broker, channel, futures):
        peer = broker.links[0]
        peer.send(0, ConnectionBlocked("low on memory"))
        await eventually(lambda: channel._core.session.blocked == "low on memory", "the block is visible")
        with pytest.raises(PublishTimeout, match="not sent"):
            await channel.send(b"too late", routing_key="q", timeout=0.05)
        peer.ack(1)  # confirms still arrive
        await futures[0]
        waiting = [asyncio.create_task(channel.publish(b"%d" % n, routing_key="q")) for n in range(5)]
        await channel.declare_queue("q")  # other requests go on; the answer comes behind what would have been sent
        assert len(peer.published) == 1
        peer.send(0, ConnectionUnblocked())
        await eventually(lambda: len(peer.published) == 6, "what waited")
        assert [body for *_, body in peer.published[1:]] == [b"0", b"1", b"2", b"3", b"4"]
        peer.ack(6, multiple=True)
        await asyncio.gather(*waiting)
        assert channel._core.session.blocked is None


async def test_a_refusal_names_exchange_and_routing_key() -> None:
    async with _publishing(1) as (broker, _, futures):
        broker.links[0].nack(1)
        with pytest.raises(PublishRefused, match="routing key 'q'"):
            await futures[0]


async def test_a_return_before_the_loss_is_raised_once() -> None:
    async with _publishing(1) as (broker, channel, futures):
        broker.links[0].give_back(1)
        with pytest.raises(PublishReturned):
            await futures[0]
        broker.links[0].send(0, ConnectionClose(InternalError(541, "").reply_code, "INTERNAL_ERROR"))
        again = await _lost(broker)
        await channel.qos(10, timeout=90)
        assert again.published == []
        with pytest.raises(ExceptionGroup):
            await channel.wait_for_confirms(timeout=90)
        await channel.wait_for_confirms(timeout=90)
