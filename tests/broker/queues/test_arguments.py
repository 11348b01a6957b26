"""Queue arguments that crash RabbitMQ, which then does not answer for a while: not comparable cases."""

import asyncio

import pytest

from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from tests.differential.peer import Peer


@pytest.mark.parametrize("value", [1, True, None, "", "elsewhere", [1], {"a": 1}, b"elsewhere"])
async def test_a_queue_master_locator_that_is_unknown_is_an_internal_error(value: FieldValue) -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        assert "541" in (await asyncio.to_thread(_declare, broker.url, value))


@pytest.mark.parametrize("value", ["client-local", "min-masters", "random"])
async def test_a_queue_master_locator_that_is_known_is_taken(value: str) -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        assert "QueueDeclareOk" in (await asyncio.to_thread(_declare, broker.url, value))


def _declare(url: str, value: FieldValue) -> str:
    with Peer(url) as peer:
        peer.queue("q", x_queue_master_locator=value)
        return peer.log[-1]
