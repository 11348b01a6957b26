"""Resending after a loss, and publishes that end their connection each time."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, RecoveryEvent, _recovery
from rabbitry.amqp.protocol.events import PUBLISH, Event
from rabbitry.amqp.protocol.methods import BasicAck, ChannelClose, ChannelOpen, ConnectionClose, Method, QueueDeclare
from rabbitry.amqp.protocol.properties import FLAG_HEADERS, FLAG_MESSAGE_ID, EncodedProperties
from rabbitry.exceptions import ConnectionClosed, ConnectionForced, InternalError
from rabbitry.runtime import backoff
from rabbitry.runtime.backoff import Backoff
from tests.support.scripted import ScriptedBroker, ScriptedLink
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


class _Fussy(ScriptedLink):
    """Confirms each publish, but ends the connection at the poison."""

    end: ClassVar[Callable[[ScriptedLink], None]]

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            before = len(self.published)
            super().on_events([event])
            if event[0] == PUBLISH and len(self.published) > before:
                if self.published[-1][3] == b"poison":
                    type(self).end(self)
                    return
                self.send(event[1], BasicAck(self.channels.count(event[1])))


def _close(code: int) -> Callable[[ScriptedLink], None]:
    return lambda link: link.send(0, ConnectionClose(code, "INTERNAL_ERROR" if code == 541 else "CONNECTION_FORCED"))


def _abort(link: ScriptedLink) -> None:
    link.driver.abort()


_ENDS = {
    "541": (_close(541), InternalError),
    "320": (_close(320), ConnectionForced),
    "dies": (_abort, ConnectionClosed),
}


@pytest.fixture(params=list(_ENDS))
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[ConnectionClosed]:
    """How the broker closes a connection at the poison message, and the resulting error."""
    way, error = _ENDS[request.param]
    monkeypatch.setattr(_Fussy, "end", way, raising=False)
    return error


def _links(broker: ScriptedBroker) -> list[list[bytes]]:
    return [[body for *_, body in link.published] for link in broker.links]


async def test_a_publish_that_ends_its_connection_fails_and_the_channel_goes_on(end: type[ConnectionClosed]) -> None:
    async with ScriptedBroker(_Fussy) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        with pytest.raises(end, match=r"each time this message was sent.*routing key 'q', 6 bytes") as caught:
            await channel.publish(b"poison", routing_key="q", timeout=90)
        assert isinstance(caught.value.__cause__, end)
        await channel.publish(b"after", routing_key="q", timeout=90)
        assert sum(b"poison" in published for published in _links(broker)) == (2 if end is InternalError else 4)


async def test_a_message_that_crashes_the_connection_is_given_up(broker_url: str) -> None:
    """A NaN in bytes that are encoded already: both brokers end the connection with 541."""
    nan = b"\0\0\0\x0b\x01rd\x7f\xf8\0\0\0\0\0\0"
    poison = EncodedProperties(FLAG_HEADERS | FLAG_MESSAGE_ID, nan, b"")
    losses: list[RecoveryEvent] = []
    async with rabbitry.connect(broker_url, on_recovery=losses.append) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        receipts = [
            await channel.send(b"%d" % number, routing_key="q", properties=poison if number == 20 else None)
            for number in range(40)
        ]
        outcomes = await asyncio.gather(*receipts, return_exceptions=True)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [20]
        assert isinstance(outcomes[20], InternalError)
        assert sum(event.kind == "lost" for event in losses) <= 3
        assert (await channel.delete_queue("q")) >= 39


async def test_other_messages_in_flight_are_confirmed_in_order(end: type[ConnectionClosed]) -> None:
    async with ScriptedBroker(_Fussy) as broker, rabbitry.connect(broker.url) as connection:
        first, second = await connection.channel(), await connection.channel()
        bodies = [b"%d" % n for n in range(10)] + [b"poison"] + [b"%d" % n for n in range(10, 30)]
        receipts = [await first.send(body, routing_key="q", timeout=90) for body in bodies]
        others = [await second.send(b"other", routing_key="q", timeout=90) for _ in range(5)]
        late = asyncio.create_task(first.publish(b"late", routing_key="q", timeout=90))
        outcomes = await asyncio.gather(*receipts, *others, late, return_exceptions=True)
        failed = [outcome for outcome in outcomes if outcome is not None]
        assert [type(error) for error in failed] == [end]
        assert outcomes.index(failed[0]) == 10
        assert len(broker.links) <= 6
        last = [body for *_, body in broker.links[-1].published if body != b"other"]
        assert last == sorted(last, key=lambda body: 99 if body == b"late" else int(body))


async def test_an_unstable_network_is_not_blamed_on_a_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost a moment after each publish, five times, whatever was published."""
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.01, 0.01))
    losses = 0

    class Flapping(ScriptedLink):
        def on_events(self, events: list[Event]) -> None:
            nonlocal losses
            super().on_events(events)
            if losses < 5 and len(self.channels) + len(self.confirming):
                losses += 1
                self.driver.abort()
            elif self.published:
                self.ack(len(self.published))

    async with ScriptedBroker(Flapping) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.publish(b"innocent", routing_key="q", timeout=90)
        assert losses == 5
        assert len(broker.links) == 6


async def test_recoveries_that_do_not_last_have_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer that accepts every connection and drops it."""
    asked: list[int] = []

    class Pauses(Backoff):
        def pause(self, attempt: int) -> float:
            asked.append(attempt)
            return super().pause(attempt)

    pauses = Pauses(0.001, 0.001)
    monkeypatch.setattr(backoff, "AGAIN", pauses)
    monkeypatch.setattr(_recovery, "HELD", 3600.0)
    kinds: list[str] = []

    def note(event: RecoveryEvent) -> None:
        kinds.append(event.kind)
        if kinds.count("recovered") < 6 and event.kind == "recovered":
            broker.links[-1].driver.abort()

    async with ScriptedBroker() as broker, rabbitry.connect(broker.url, on_recovery=note) as connection:
        await connection.channel()
        broker.links[0].driver.abort()
        await eventually(lambda: kinds.count("recovered") == 6, "the last recovery")
        assert asked == [1, 2, 3, 4], "two are made at once"
        monkeypatch.setattr(_recovery, "HELD", 0.0)
        broker.links[-1].driver.abort()
        await eventually(lambda: kinds.count("recovered") == 7, "a recovery after one that held")
        assert asked == [1, 2, 3, 4]


async def test_closes_after_each_handshake_lead_to_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    class Pauses(Backoff):
        def pause(self, attempt: int) -> float:
            asked.append(attempt)
            return super().pause(attempt)

    pauses = Pauses(0.001, 0.001)
    monkeypatch.setattr(backoff, "AGAIN", pauses)
    monkeypatch.setattr(_recovery, "HELD", 3600.0)

    class Closing(ScriptedLink):
        def _on_method(self, channel: int, method: Method) -> None:
            if isinstance(method, ChannelOpen) and 0 < len(broker.links) - 1 < 5:
                self.driver.abort()
            else:
                super()._on_method(channel, method)

    async with ScriptedBroker(Closing) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        broker.links[0].driver.abort()
        await channel.qos(5)
        assert asked == [1, 2, 3, 4]


async def test_a_request_over_which_the_connection_is_lost_each_time_fails_with_the_loss() -> None:
    class Deadly(ScriptedLink):
        def _on_method(self, channel: int, method: Method) -> None:
            if isinstance(method, QueueDeclare):
                self.driver.abort()
            else:
                super()._on_method(channel, method)

    async with ScriptedBroker(Deadly) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        with pytest.raises(ConnectionClosed, match="connection lost"):
            await channel.declare_queue("deadly")
        assert len(broker.links) == 3
        await channel.qos(5)


async def _published(channel: Channel, body: bytes) -> None:
    await channel.publish(body, routing_key="q", timeout=90)


async def test_publishes_in_a_failing_recovery_are_sent_once_after_confirm_select(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The link is lost again during its recovery.

    A publish once went out over the next link before that one was restored. Only the broker counted it, and each later
    confirm settled the message after the one that it belonged to.
    """
    waits = asyncio.Event()

    class Second(ScriptedLink):
        def _on_method(self, channel: int, method: Method) -> None:
            number = broker.links.index(self)
            if number == 1 and isinstance(method, ChannelClose):
                self.driver.abort()  # the channel that declared everything again: the restoring is nearly done
            elif number == 2 and isinstance(method, ChannelOpen) and not waits.is_set():
                waits.set()
                self.held = channel, method
            else:
                super()._on_method(channel, method)

        def go_on(self) -> None:
            super()._on_method(*self.held)

    async with ScriptedBroker(Second) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        old = asyncio.create_task(_published(channel, b"old"))
        await eventually(lambda: broker.links[0].published, "the first message")
        broker.links[0].driver.abort()
        await eventually(lambda: len(broker.links) == 2 and broker.links[1].lost, "the second link, and its loss")
        await waits.wait()
        new = asyncio.create_task(_published(channel, b"new"))
        await asyncio.sleep(0)  # it has done what it can before the channel is restored
        last = broker.links[2]
        assert isinstance(last, Second)
        last.go_on()
        await eventually(lambda: len(last.published) == 2, "both messages")
        await channel.qos(5)
        assert [body for *_, body in last.published] == [b"old", b"new"]
        assert last.published_before_confirming == 0
        for tag in (1, 2):
            last.ack(tag)
        await asyncio.gather(old, new)
