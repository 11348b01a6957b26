"""Using what other programs declared, and saying once that it is otherwise."""

import logging

import pytest

import rabbitry
from rabbitry.exceptions import PreconditionFailed
from rabbitry.flow.wiring.declarer import Declarer


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What was said."""
    caplog.set_level(logging.WARNING, "rabbitry.flow")
    return caplog


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("rabbitry.flow.")]


async def test_a_difference_is_logged_once_over_all_connections(
    broker_url: str, warnings: pytest.LogCaptureFixture
) -> None:
    declarer = Declarer()
    async with rabbitry.connect(broker_url) as other, await other.channel() as theirs:
        await theirs.declare_exchange("news", "fanout")
        await theirs.declare_queue("tasks", arguments={"x-max-length": 3})
        for _ in range(3):
            async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
                await declarer.exchange(channel, "news", "direct", durable=True)
                await declarer.queue(channel, "tasks", durable=True)
                await channel.bind_queue("tasks", "news", "k")  # the channel is open again
    assert len(_said(warnings)) == 2
    assert all("exists with other flags and is used as it is" in text for text in _said(warnings))


@pytest.mark.parametrize("durable", [True, False])
async def test_the_type_that_an_exchange_really_has_is_known(broker_url: str, durable: bool) -> None:
    declarer = Declarer()
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("first", "fanout", durable=not durable)
        await channel.declare_exchange("second", "direct", durable=not durable)
        for name in ("first", "second", "third"):
            await declarer.exchange(channel, name, "direct", durable=durable)
        assert declarer.types == {"first": "fanout"}
        await channel.delete_exchange("first")
        await declarer.exchange(channel, "first", "direct", durable=durable)
        assert declarer.types == {}


async def test_a_strict_declarer_refuses_differences(broker_url: str, warnings: pytest.LogCaptureFixture) -> None:
    declarer = Declarer(strict=True)
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("tasks", auto_delete=True)
        with pytest.raises(PreconditionFailed, match="auto_delete"):
            await declarer.queue(channel, "tasks", durable=False)
        await channel.open()
        await channel.declare_exchange("news", "topic", auto_delete=True)
        with pytest.raises(PreconditionFailed, match="auto_delete"):
            await declarer.exchange(channel, "news", "topic", durable=False)
    assert _said(warnings) == []


async def test_a_durable_queue_that_refuses_plain_programs_is_reported(
    broker_url: str, warnings: pytest.LogCaptureFixture
) -> None:
    declarer = Declarer()
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("news", "direct", durable=True)
        await channel.declare_queue("tasks", durable=False)
        await declarer.exchange(channel, "news", "direct", durable=False)
        await declarer.queue(channel, "tasks", durable=True)
    exchange, queue = _said(warnings)
    assert exchange.endswith(
        "; programs that declare it not durable are refused: delete it, or take a broker or a data folder without it"
    )
    assert "refused" not in queue


@pytest.mark.parametrize("exclusive", [True, False])
async def test_an_exclusive_queue_held_elsewhere_is_replaced_by_a_server_named_one(
    broker_url: str, warnings: pytest.LogCaptureFixture, exclusive: bool
) -> None:
    declarer = Declarer()
    async with rabbitry.connect(broker_url) as other, await other.channel() as theirs:
        await theirs.declare_queue("Consumer", exclusive=exclusive)
        for _ in range(2):
            async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
                name = await declarer.exclusive_queue(channel, "Consumer")
                assert name.startswith("amq.gen-")
                await channel.bind_queue(name, "amq.fanout")
        await theirs.delete_queue("Consumer")
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            assert await declarer.exclusive_queue(channel, "Consumer") == "Consumer"
    assert len(_said(warnings)) == 1
