"""Permissions: each step has the same outcome on RabbitMQ and on the embedded broker, word for word."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, ProbableAccessDeniedError

from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.access import Permission, hash_password
from tests.support.rabbitmq import RabbitMQ

Step = Callable[[BlockingChannel], object]
Outcome = tuple[int, str]

_DONE: Outcome = (0, "")
_PERMISSION = Permission(configure="^(mine|amq.gen)", write="^mine", read="readable|^mine")
_numbers = itertools.count()

_ALLOWED: dict[str, Step] = {
    "declare": lambda c: c.queue_declare("mine"),
    "declare without a name": lambda c: c.queue_declare("", exclusive=True),
    "passive declare needs nothing": lambda c: c.queue_declare("theirs", passive=True),
    "passive exchange declare needs nothing": lambda c: c.exchange_declare("their-exchange", passive=True),
    "get with a pattern in the middle": lambda c: c.basic_get("theirs-readable"),
    "bind": lambda c: (c.queue_declare("mine"), c.queue_bind("mine", "readable-exchange", "k")),
    "dead letter exchange": lambda c: c.queue_declare("mine-dlx", arguments={"x-dead-letter-exchange": "mine-x"}),
    "delete what is not there": lambda c: c.queue_delete("mine-missing"),
}
_REFUSED: dict[str, Step] = {
    "declare": lambda c: c.queue_declare("theirs"),
    "declare what is new": lambda c: c.queue_declare("theirs-new"),
    "purge": lambda c: c.queue_purge("theirs"),
    "delete": lambda c: c.queue_delete("theirs"),
    "delete what is not there": lambda c: c.queue_delete("theirs-missing"),
    "get": lambda c: c.basic_get("theirs"),
    "get what is not there": lambda c: c.basic_get("theirs-missing"),
    "consume": lambda c: c.basic_consume("theirs", lambda *_: None),
    "bind their queue": lambda c: c.queue_bind("theirs", "readable-exchange", "k"),
    "bind to their exchange": lambda c: (c.queue_declare("mine"), c.queue_bind("mine", "their-exchange", "k")),
    "unbind": lambda c: c.queue_unbind("theirs", "readable-exchange", "k"),
    "exchange declare": lambda c: c.exchange_declare("their-exchange"),
    "exchange delete": lambda c: c.exchange_delete("their-exchange"),
    "exchange bind to theirs": lambda c: c.exchange_bind("their-exchange", "readable-exchange"),
    "exchange bind from theirs": lambda c: (
        c.exchange_declare("mine-e"),
        c.exchange_bind("mine-e", "their-exchange"),
    ),
    "exchange unbind": lambda c: c.exchange_unbind("their-exchange", "readable-exchange"),
    "publish": lambda c: (c.basic_publish("their-exchange", "k", b""), c.queue_declare("mine", passive=True)),
    "publish to the default exchange": lambda c: (c.basic_publish("", "k", b""), c.queue_declare("m", passive=True)),
    "publish to a missing exchange": lambda c: (c.basic_publish("no", "k", b""), c.queue_declare("m", passive=True)),
    "their dead letter exchange": lambda c: c.queue_declare("mine-1", arguments={"x-dead-letter-exchange": "theirs"}),
    "their alternate exchange": lambda c: c.exchange_declare("mine-2", arguments={"alternate-exchange": "theirs"}),
    "another's user-id": lambda c: (
        c.basic_publish("mine-x", "k", b"", pika.BasicProperties(user_id="guest")),
        c.queue_declare("mine", passive=True),
    ),
}


def _prepare(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for queue in ("theirs", "theirs-readable"):
            channel.queue_declare(queue)
        for exchange in ("their-exchange", "readable-exchange", "mine-x"):
            channel.exchange_declare(exchange)


def _outcomes(url: str) -> dict[str, Outcome]:
    outcomes = {}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for name, step in [*_ALLOWED.items(), *((f"not {name}", step) for name, step in _REFUSED.items())]:
            channel = connection.channel()
            try:
                step(channel)
                outcomes[name] = _DONE
            except ChannelClosedByBroker as error:
                outcomes[name] = (error.reply_code, error.reply_text)
    return outcomes


def _login(url: str) -> Outcome:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except ProbableAccessDeniedError as error:
        return 530, str(error)  # its text holds code and text of the broker's close
    return _DONE


def _with(url: str, login: str) -> str:
    return url.replace("guest:guest", login)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0)) as broker:
        broker.access.put_user("ann", hash_password("secret"))
        broker.access.put_permission("/", "ann", _PERMISSION)
        broker.access.put_user("outsider", hash_password("secret"))
        yield broker


@pytest.fixture
def theirs(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    name = f"access-{next(_numbers)}"
    url = rabbitmq_server.add_vhost(name)
    for user in ("ann", "outsider"):
        rabbitmq_server.add_user(user, "secret")
    permission = (_PERMISSION.configure, _PERMISSION.write, _PERMISSION.read)
    rabbitmq_server.set_permissions("ann", *permission, vhost=name)
    yield url
    for user in ("ann", "outsider"):
        rabbitmq_server.delete_user(user)
    rabbitmq_server.delete_vhost(name)


async def test_refusals_have_the_same_text_on_both_brokers(broker: Broker, theirs: str) -> None:
    vhost = theirs.rpartition("/")[2]
    expected: dict[str, Outcome] = {}
    ours: dict[str, Outcome] = {}
    for url, outcomes in ((theirs, expected), (broker.url, ours)):
        await asyncio.to_thread(_prepare, url)
        outcomes |= await asyncio.to_thread(_outcomes, _with(url, "ann:secret"))
        outcomes["enter"] = await asyncio.to_thread(_login, _with(url, "outsider:secret"))
    expected = {name: (code, text.replace(f"'{vhost}'", "'/'")) for name, (code, text) in expected.items()}
    assert ours == expected
    assert all(ours[name] == _DONE for name in _ALLOWED)
    assert all(ours[f"not {name}"] != _DONE for name in _REFUSED)
    assert "(530)" in ours["enter"][1]


async def test_a_changed_permission_applies_to_the_next_publish(broker: Broker) -> None:
    def publish(channel: BlockingChannel) -> None:
        channel.basic_publish("mine-x", "k", b"")
        channel.basic_get("theirs-readable")

    await asyncio.to_thread(_prepare, broker.url)
    url = _with(broker.url, "ann:secret")
    connection = await asyncio.to_thread(pika.BlockingConnection, pika.URLParameters(url))
    channel = await asyncio.to_thread(connection.channel)
    await asyncio.to_thread(publish, channel)
    broker.access.put_permission("/", "ann", Permission("", "", ".*"))
    with pytest.raises(ChannelClosedByBroker, match="access to exchange 'mine-x' in vhost '/' refused for user 'ann'"):
        await asyncio.to_thread(publish, channel)
    await asyncio.to_thread(connection.close)


async def test_an_impersonator_may_set_another_user_id(broker: Broker) -> None:
    broker.access.put_user("ann", hash_password("secret"), ("impersonator",))
    await asyncio.to_thread(_prepare, broker.url)
    outcomes = await asyncio.to_thread(_outcomes, _with(broker.url, "ann:secret"))
    assert outcomes["not another's user-id"] == _DONE


async def test_deleting_a_user_closes_its_connections(broker: Broker) -> None:
    parameters = pika.URLParameters(_with(broker.url, "ann:secret"))
    connection = await asyncio.to_thread(pika.BlockingConnection, parameters)
    broker.delete_user("ann")
    with pytest.raises(ConnectionClosedByBroker, match="user 'ann' is deleted"):
        await asyncio.to_thread(connection.process_data_events, 20)
