"""The exchange type x-local-random, beyond what the differential tests compare."""

import asyncio

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._exchanges.local_random import LocalRandomExchange
from tests.support.management import Api


async def test_a_queue_that_is_bound_twice_gets_twice_as_much() -> None:
    async with Broker(BrokerConfig(port=0, compat="4.0")) as broker:
        vhost = broker.vhosts["/"]
        vhost.declare_exchange(
            "e", LocalRandomExchange.type, durable=False, auto_delete=False, internal=False, arguments={}
        )
        for name in ("a", "b"):
            vhost.declare_queue(name, None, durable=False, exclusive=False, auto_delete=False, arguments={})
            vhost.bind("e", vhost.queues[name], "", {})
        vhost.bind("e", vhost.queues["a"], "", {"again": 1})
        exchange = vhost.exchange("e")
        found = [next(iter(exchange.match("any", Properties()))) for _ in range(6000)]
        share = found.count(vhost.queues["a"]) / len(found)
        assert 0.6 < share < 0.73  # two thirds, within eleven standard deviations
        for arguments in ({}, {"again": 1}):
            vhost.unbind("e", vhost.queues["a"], "", arguments)
        assert set(exchange.match("any", Properties())) == {vhost.queues["b"]}


async def test_definitions_with_an_impossible_binding_change_nothing() -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, compat="4.0")) as broker:
        api = Api(broker.management_url)
        _, types = await asyncio.to_thread(api, "GET", "/api/overview")
        assert LocalRandomExchange.type in str(types["exchange_types"])
        for kind, key, status in (("quorum", "", 400), ("classic", "key", 400), ("classic", "", 204)):
            definitions = {
                "vhosts": [{"name": "new"}],
                "queues": [
                    {
                        "vhost": "new",
                        "name": "q",
                        "durable": True,
                        "auto_delete": False,
                        "arguments": {"x-queue-type": kind},
                    }
                ],
                "exchanges": [
                    {
                        "vhost": "new",
                        "name": "e",
                        "type": "x-local-random",
                        "durable": True,
                        "auto_delete": False,
                        "internal": False,
                        "arguments": {},
                    }
                ],
                "bindings": [
                    {
                        "vhost": "new",
                        "source": "e",
                        "destination": "q",
                        "destination_type": "queue",
                        "routing_key": key,
                        "arguments": {},
                    }
                ],
            }
            got, _ = await asyncio.to_thread(api, "POST", "/api/definitions", definitions)
            assert got == status
            assert ("new" in broker.vhosts) == (status == 204)


async def test_the_release_before_does_not_have_it() -> None:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        _, types = await asyncio.to_thread(Api(broker.management_url), "GET", "/api/overview")
        assert LocalRandomExchange.type not in str(types["exchange_types"])
