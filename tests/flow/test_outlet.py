"""What a broker refuses: published again, over another channel, and a dead letter only where that does not help."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

import rabbitry
from rabbitry.amqp.client import Connection, Properties
from rabbitry.amqp.protocol.methods import BasicAck, BasicNack
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import PublishRefused, PublishReturned
from rabbitry.flow import _outlet
from rabbitry.flow._outlet import Outlet
from rabbitry.flow.message import Publication
from rabbitry.flow.worker import _settlement
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds
from tests.support import programs, rabbitmq
from tests.support.cluster import Cluster
from tests.support.scripted import ScriptedBroker, ScriptedLink
from tests.support.waiting import eventually

_FULL: Final[Table] = {"x-max-length": 1, "x-overflow": "reject-publish"}


@pytest.fixture
async def broker() -> AsyncIterator[ScriptedBroker]:
    async with ScriptedBroker() as broker:
        yield broker


@pytest.fixture
async def connection(broker: ScriptedBroker) -> AsyncIterator[Connection]:
    async with rabbitry.connect(broker.url) as connection:
        yield connection


@pytest.fixture
def link(broker: ScriptedBroker, connection: Connection) -> ScriptedLink:
    return broker.links[0]


async def _nothing() -> None: ...


def _message(number: int) -> Publication:
    return Publication("", "q", b"%d" % number, Properties())


async def test_after_a_refusal_another_channel_is_used_and_the_first_closed_when_it_is_done(
    connection: Connection, link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outlet, "_LEAST_AGE", 0.0)
    out = Outlet(connection, await connection.channel(), _nothing)
    futures = [await out.send(_message(number)) for number in range(3)]
    await eventually(lambda: link.channels == [1, 1, 1], "three over one channel")
    link.send(1, BasicNack(1, False, False))
    with pytest.raises(PublishRefused):
        await futures[0]
    out.refused()
    futures.append(await out.send(_message(3)))
    await eventually(lambda: link.channels == [1, 1, 1, 2], "the next over another one")
    assert not link.closed
    link.send(1, BasicNack(2, False, False))
    link.send(1, BasicAck(3, False))
    await futures[2]
    link.send(2, BasicNack(1, False, False))
    with pytest.raises(PublishRefused):
        await futures[3]
    out.refused()
    futures.append(await out.send(_message(4)))
    await eventually(lambda: link.channels[-1] == 3, "the next over a third one")
    await eventually(lambda: link.closed == [1, 2], "the two others closed")
    link.send(3, BasicAck(1, False))
    with pytest.raises(ExceptionGroup) as told:
        await out.wait_for_confirms()
    assert [type(error) for error in told.value.exceptions] == [PublishRefused] * 3
    await out.wait_for_confirms()


async def test_channels_are_not_replaced_for_each_refusal(
    connection: Connection, link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outlet, "_LEAST_AGE", 3600.0)
    out = Outlet(connection, await connection.channel(), _nothing)
    for number in range(5):
        future = await out.send(_message(number))
        await eventually(lambda number=number: len(link.channels) > number, "it")  # type: ignore[misc] # bound now
        link.send(1, BasicNack(number + 1, False, False))
        with pytest.raises(PublishRefused):
            await future
        out.refused()
    assert link.channels == [1] * 5


async def test_tasks_that_meet_a_refusal_at_once_share_the_next_channel(
    connection: Connection, link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outlet, "_LEAST_AGE", 0.0)
    out = Outlet(connection, await connection.channel(), _nothing)
    await out.send(_message(0))
    out.refused()
    await asyncio.gather(*(out.send(_message(number)) for number in range(1, 6)))
    await eventually(lambda: link.channels == [1] + [2] * 5, "all over the second")
    link.send(1, BasicAck(1, False))  # else leaving the connection's block waits for the confirms
    link.send(2, BasicAck(5, True))


async def test_a_message_with_copies_fails_as_one(connection: Connection, link: ScriptedLink) -> None:
    out = Outlet(connection, await connection.channel(), _nothing)
    message = _message(0)._replace(also=("a", "b"))
    sending = asyncio.create_task(out.send(message))
    await eventually(lambda: [key for _, key, _, _ in link.published] == ["a", "b", "q"], "all of them")
    for tag in (1, 2, 3):
        link.give_back(tag)
    link.ack(3, multiple=True)
    with pytest.raises(PublishReturned):
        await sending
    # The end of the connection's block raises nothing: all three failures count as seen.


async def test_a_message_is_sent_when_its_copies_are_confirmed(connection: Connection, link: ScriptedLink) -> None:
    out = Outlet(connection, await connection.channel(), _nothing)
    sending = asyncio.create_task(out.send(_message(0)._replace(also=("a", "b"))))
    await eventually(lambda: len(link.published) == 3, "all of them")
    link.ack(2, multiple=True)
    receipt = await sending
    assert not receipt.done()
    link.ack(3)
    await receipt


async def test_a_refused_copy_has_the_next_message_go_over_another_channel(
    connection: Connection, link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outlet, "_LEAST_AGE", 0.0)
    out = Outlet(connection, await connection.channel(), _nothing)
    sending = asyncio.create_task(out.send(_message(0)._replace(also=("a",))))
    await eventually(lambda: len(link.published) == 2, "both of them")
    link.nack(1)
    link.ack(2)
    with pytest.raises(PublishRefused):
        await sending
    receipt = await out.send(_message(1))
    await eventually(lambda: link.channels == [1, 1, 2], "the next over another one")
    link.send(2, BasicAck(1, False))
    await receipt


async def test_copies_are_sent_alone_one_after_the_other(connection: Connection, link: ScriptedLink) -> None:
    out = Outlet(connection, await connection.channel(), _nothing)
    sending = asyncio.create_task(out.send_alone(_message(0)._replace(also=("a", "b"))))
    for number in range(1, 4):
        await eventually(lambda number=number: len(link.published) >= number, "the next")  # type: ignore[misc] # bound now
        assert [key for _, key, _, _ in link.published] == ["a", "b", "q"][:number]
        assert not sending.done()
        link.send(link.channels[-1], BasicAck(number, False))
    await sending


async def test_a_refused_result_is_published_again_until_it_is_accepted(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settlement, "REFUSED_PAUSES", (0.1,) * 1000)
    refusals: list[Outlet] = []
    refused = Outlet.refused

    def count(out: Outlet) -> None:
        refusals.append(out)
        refused(out)

    monkeypatch.setattr(Outlet, "refused", count)
    app = rabbitry.App("again")

    @app.stage("in", then="out")
    async def pass_on(text: str) -> str:
        return text

    app.output("out", queue="again.out")
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("again.out", durable=True, arguments=_FULL)
        await channel.publish(b"full", routing_key="again.out")
        async with app.worker(broker_url, connect_attempts=1):
            await app.publish("x", key="in", url=broker_url)
            await eventually(lambda: len(refusals) > 1, "the result to be refused, and again")
            assert (await channel.get("again.out", no_ack=True)) is not None
            await eventually_holds(broker_url, "again.out", 1)
            taken = await channel.get("again.out", no_ack=True)
        assert taken is not None
        assert taken.body == b"x"
    assert not await dead_of(broker_url, app)


async def test_a_result_refused_each_time_is_a_dead_letter(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settlement, "REFUSED_PAUSES", (0.01, 0.02))
    app = rabbitry.App("full")

    @app.stage("in", then="out")
    async def pass_on(text: str) -> str:
        return text

    app.output("out", queue="full.out")
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("full.out", durable=True, arguments=_FULL)
        await channel.publish(b"full", routing_key="full.out")
        async with app.worker(broker_url, connect_attempts=1):
            await app.publish("x", key="in", url=broker_url)
            await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert (letter.reason, letter.body, letter.routing_key) == ("refused", b"x", "out")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    programs.require(rabbitmq.why_missing())
    with Cluster() as cluster:
        yield cluster


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_results_find_the_next_leader_of_a_quorum_queue(cluster: Cluster) -> None:
    """A channel that first publishes to the queue just when its leader dies is refused until that node is back."""
    app = rabbitry.App("leader", queue_type="quorum")

    @app.stage("in", then=lambda text: f"out.{int(text) % 10}")
    async def pass_on(text: str) -> str:
        return text

    outputs = [f"leader.{number}" for number in range(10)]
    for number, queue in enumerate(outputs):
        app.output(f"out.{number}", queue=queue)
    first, second, _ = cluster.nodes
    arguments: Table = {"x-queue-type": "quorum", "x-delivery-limit": 20}
    async with rabbitry.connect(first.url) as connection, await connection.channel() as channel:
        for queue in outputs:  # a quorum queue's first leader is where it is declared
            await channel.declare_queue(queue, durable=True, arguments=arguments)
    async with app.publisher(second.url) as publisher, app.worker(second.url, connect_attempts=1):
        await asyncio.to_thread(first.kill)
        for number in range(200):
            await publisher.publish(str(number), key="in")
        for queue in outputs:
            await eventually_holds(second.url, queue, 20)
        assert (await counts(second.url, ["leader.dead"])) == {"leader.dead": 0}
        await asyncio.to_thread(first.start)
