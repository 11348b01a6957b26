"""Channels without confirms, and transactions over them."""

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL
from rabbitry.exceptions import ConnectionClosed, PublishReturned, UsageError


async def test_without_confirms_a_message_is_done_once_written(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(confirms=False)
        queue = (await channel.declare_queue("", exclusive=True)).name
        for number in range(5000):  # more than a window of unconfirmed messages
            assert (await channel.send(b"%d" % number, routing_key=queue)).done()
        await channel.publish(b"last", routing_key=queue)
        assert await channel.purge_queue(queue) == 5001


async def test_without_confirms_a_returned_message_raises(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(confirms=False)
        await channel.publish(b"x", routing_key="no-such-queue")
        await channel.declare_queue("", exclusive=True)  # its answer comes behind the message
        with pytest.raises(ExceptionGroup) as raised:
            await channel.wait_for_confirms()
        assert isinstance(raised.value.exceptions[0], PublishReturned)


async def test_a_transaction_commits_all_of_it_or_nothing(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(confirms=False)
        other = await connection.channel()
        source = (await channel.declare_queue("", exclusive=True)).name
        target = (await channel.declare_queue("", exclusive=True)).name
        await other.publish(b"in", routing_key=source)
        delivery = await channel.get(source)
        assert delivery is not None

        async def fail_halfway() -> None:
            async with channel.transaction():
                await channel.publish(b"out", routing_key=target)
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await fail_halfway()
        assert await other.get(target) is None
        async with channel.transaction():
            await channel.publish(b"out", routing_key=target)
            assert await other.get(target) is None
            delivery.ack()
        got = await other.get(target)
        assert got is not None
        with pytest.raises(UsageError, match="outside a transaction"):
            await channel.publish(b"outside", routing_key=target)
        await channel.close()
        assert await other.get(source) is None


async def test_a_transaction_does_not_outlive_its_connection(url: BrokerURL) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel(confirms=False)
        queue = (await channel.declare_queue("", exclusive=True)).name

        async def lose_it_halfway() -> None:
            async with channel.transaction():
                await channel.publish(b"before", routing_key=queue)
                assert connection._session.link is not None
                connection._session.link.driver.abort()
                await connection._session.link.wait_lost()
                await channel.publish(b"after", routing_key=queue)

        with pytest.raises(ConnectionClosed, match="none of it took effect"):
            await lose_it_halfway()
        assert await channel.get(queue) is None
        async with channel.transaction():
            await channel.publish(b"again", routing_key=queue)
        got = await channel.get(queue)
        assert got is not None
        assert got.body == b"again"


async def test_misuse_of_transactions_raises_a_usage_error(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        with pytest.raises(UsageError, match="confirms=False"):
            await (await connection.channel()).transaction().__aenter__()
        channel = await connection.channel(confirms=False)
        async with channel.transaction():
            with pytest.raises(UsageError, match="in a transaction already"):
                await channel.transaction().__aenter__()


def test_blocking_transactions_commit_or_roll_back(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel(confirms=False)
        queue = channel.declare_queue("", exclusive=True).name
        with channel.transaction():
            for _ in range(3):
                channel.send(b"x", routing_key=queue)

        def fail_halfway() -> None:
            with channel.transaction():
                channel.send(b"x", routing_key=queue)
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            fail_halfway()
        assert channel.purge_queue(queue) == 3
