"""What `send` returns: the same in both clients, and in the publishers of an app."""

import asyncio
import concurrent.futures

import pytest

import rabbitry
from rabbitry.amqp.client.blocking.receipts import pass_on
from rabbitry.amqp.protocol.properties import FLAG_MESSAGE_ID, EncodedProperties
from rabbitry.exceptions import PublishReturned
from rabbitry.runtime.io_thread import IOThread
from tests.support.waiting import eventually_blocking

_OF_ASYNCIO = {"get_loop"}
_OF_THREADS = {"running", "set_running_or_notify_cancel"}


def _app() -> rabbitry.App:
    app = rabbitry.App("receipts")

    @app.stage("in")
    def handle(text: str) -> None: ...

    app.output("nowhere")
    return app


def _shown(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_both_have_the_same_names_but_for_those_of_their_libraries() -> None:
    assert issubclass(rabbitry.Receipt, asyncio.Future)
    assert issubclass(rabbitry.BlockingReceipt, concurrent.futures.Future)
    ours = _shown(rabbitry.Receipt) - _OF_ASYNCIO - {"remove_done_callback"}
    assert ours == _shown(rabbitry.BlockingReceipt) - _OF_THREADS
    assert {"message_id", "failure"} <= ours


async def test_a_receipt_has_the_id_of_its_message(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        given = [
            None,
            rabbitry.Properties(message_id="mine-é"),
            rabbitry.Properties(headers={"h": 1}),
            EncodedProperties(FLAG_MESSAGE_ID, b"", b""),
        ]
        receipts = [await channel.send(b"x", routing_key=queue, properties=properties) for properties in given]
        await asyncio.gather(*receipts)
        found = [await channel.get(queue, no_ack=True) for _ in receipts]
        assert [receipt.message_id for receipt in receipts] == [
            delivery and delivery.properties.message_id for delivery in found
        ]
        assert receipts[1].message_id == "mine-é"
        assert len({receipt.message_id for receipt in receipts}) == 4
        assert {type(receipt) for receipt in receipts} == {rabbitry.Receipt}


def test_a_blocking_receipt_has_the_id_of_its_message(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection, connection.channel() as channel:
        queue = channel.declare_queue(exclusive=True).name
        given = [
            None,
            rabbitry.Properties(message_id="mine-é"),
            rabbitry.Properties(headers={"h": 1}),
            EncodedProperties(FLAG_MESSAGE_ID, b"", b""),
        ]
        receipts = [channel.send(b"x", routing_key=queue, properties=properties) for properties in given]
        channel.wait_for_confirms()
        found = [channel.get(queue, no_ack=True) for _ in receipts]
        assert [receipt.message_id for receipt in receipts] == [
            delivery and delivery.properties.message_id for delivery in found
        ]
        assert receipts[1].message_id == "mine-é"
        assert len({receipt.message_id for receipt in receipts}) == 4
        assert {type(receipt) for receipt in receipts} == {rabbitry.BlockingReceipt}


async def test_a_receipt_has_the_cause_of_a_failure(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        receipt = await channel.send(b"x", routing_key="nowhere")
        assert receipt.failure is None
        with pytest.raises(PublishReturned) as raised:
            await receipt
        assert receipt.failure is raised.value


def test_a_blocking_receipt_has_the_cause_of_a_failure(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection, connection.channel() as channel:
        receipt = channel.send(b"x", routing_key="nowhere")
        with pytest.raises(PublishReturned) as raised:
            receipt.result(60)
        assert receipt.failure is raised.value


async def test_an_apps_publisher_returns_receipts_too(broker_url: str) -> None:
    async with _app().publisher(broker_url) as publisher:
        receipt = await publisher.send("x", key="in")
        assert isinstance(receipt, rabbitry.Receipt)
        assert receipt.message_id
        await receipt
        lost = await publisher.send("x", key="nowhere")
        with pytest.raises(PublishReturned):
            await lost
        assert isinstance(lost.failure, PublishReturned)


def test_an_apps_blocking_publisher_returns_receipts_too(broker_url: str) -> None:
    with _app().publisher_blocking(broker_url) as publisher:
        receipt = publisher.send("x", key="in")
        assert isinstance(receipt, rabbitry.BlockingReceipt)
        assert receipt.message_id
        receipt.result(60)
        lost = publisher.send("x", key="nowhere")
        with pytest.raises(PublishReturned):
            lost.result(60)
        assert isinstance(lost.failure, PublishReturned)


def test_a_callback_in_the_io_thread_can_look_at_the_failure() -> None:
    io = IOThread()
    seen: list[BaseException | None] = []
    failure = RuntimeError("refused")

    async def sent() -> tuple[rabbitry.Receipt, rabbitry.BlockingReceipt]:
        receipt = rabbitry.Receipt(loop=asyncio.get_running_loop())
        receipt._encoded_id = b"1"
        return receipt, pass_on(receipt, io)

    async def fail() -> None:
        receipt._fail(failure)

    receipt, passed_on = io.run(sent())
    passed_on.add_done_callback(lambda done: seen.append(done.exception()))
    io.run(fail())
    eventually_blocking(lambda: seen, "the callback")
    assert seen == [failure]
    assert not receipt._is_unseen, "the end of the connection's block would raise it"
    io.stop()
