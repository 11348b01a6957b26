"""What a user with few permissions may do, and how the rest is refused, on both brokers."""

import asyncio
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.access import Permission, hash_password
from tests.differential.peer import Peer
from tests.support.rabbitmq import COMPAT, RabbitMQ

_PATTERNS: Final = Permission("^own", "^own|^amq\\.topic$", "^own|^amq\\.direct$")
_STEPS: Final[tuple[m.Method, ...]] = (
    m.QueueDeclare("own-queue"),
    m.QueueDeclare("other-queue"),
    m.QueueDeclare("theirs", passive=True),
    m.QueueDeclare(""),
    m.QueueDeclare("own-dead", arguments={"x-dead-letter-exchange": "amq.topic"}),
    m.QueueDeclare("own-dead-2", arguments={"x-dead-letter-exchange": "amq.fanout"}),
    m.QueueDeclare("own-dead-3", arguments={"x-dead-letter-exchange": ""}),
    m.QueueBind("own-queue", "amq.direct", "k"),
    m.QueueBind("own-queue", "amq.topic", "k"),
    m.QueueBind("theirs", "amq.direct", "k"),
    m.QueueUnbind("own-queue", "amq.direct", "k"),
    m.QueueUnbind("own-queue", "amq.topic", "k"),
    m.QueueUnbind("theirs", "amq.direct", "k"),
    m.QueuePurge("own-queue"),
    m.QueuePurge("theirs"),
    m.BasicGet("own-queue"),
    m.BasicGet("theirs"),
    m.BasicConsume("own-queue", "c"),
    m.BasicConsume("theirs", "d"),
    m.ExchangeDeclare("own-exchange", "fanout"),
    m.ExchangeDeclare("other-exchange", "fanout"),
    m.ExchangeDeclare("amq.fanout", "fanout", passive=True),
    m.ExchangeDeclare("own-other", "fanout", arguments={"alternate-exchange": "amq.topic"}),
    m.ExchangeDeclare("own-other-2", "fanout", arguments={"alternate-exchange": "amq.fanout"}),
    m.ExchangeBind("own-exchange", "amq.direct", "k"),
    m.ExchangeBind("own-exchange", "amq.fanout", "k"),
    m.ExchangeBind("amq.fanout", "own-exchange", "k"),
    m.ExchangeUnbind("own-exchange", "amq.direct", "k"),
    m.ExchangeUnbind("amq.fanout", "own-exchange", "k"),
    m.ExchangeDelete("own-exchange"),
    m.ExchangeDelete("theirs-exchange"),
    m.QueueDelete("own-queue"),
    m.QueueDelete("theirs"),
    m.QueueDelete("missing-of-others"),
)


def _see(url: str, limited_url: str) -> list[str]:
    with Peer(url) as owner:
        owner.queue("theirs")
        with Peer(limited_url) as peer:
            for step in _STEPS:
                peer.log.append(f"-- {step}")
                peer.call(step)
                if "ChannelClose(" in peer.log[-1]:
                    peer.open(1)
            for exchange in ("amq.topic", "amq.fanout", "", "own-other"):
                peer.log.append(f"-- publish to {exchange!r}")
                peer.publish(exchange, "k")
                peer.carried_out()
                if "ChannelClose(" in peer.log[-1]:
                    peer.open(1)
    return peer.log


def _refused(url: str) -> list[str]:
    """Log in as a user without access to the virtual host."""
    with Peer(url, log_in=False) as peer:
        peer._log_in({"authentication_failure_close": True})
        peer.is_open = False
        return [line for line in peer.log if "Start" not in line]


async def test_a_limited_user_sees_the_same_on_both_brokers(rabbitmq_server: RabbitMQ) -> None:
    url = rabbitmq_server.add_vhost("access")
    rabbitmq_server.eval('rabbit_auth_backend_internal:add_user(<<"limited">>, <<"secret">>, <<"tests">>).')
    patterns = ", ".join('<<"' + pattern.replace("\\", "\\\\") + '">>' for pattern in _PATTERNS)
    rabbitmq_server.eval(
        f'rabbit_auth_backend_internal:set_permissions(<<"limited">>, <<"access">>, {patterns}, <<"tests">>).'
    )
    limited = url.replace("guest:guest", "limited:secret")
    expected = await asyncio.to_thread(_see, url, limited)
    refused = await asyncio.to_thread(_refused, limited.replace("/access", "/"))
    rabbitmq_server.delete_vhost("access")
    rabbitmq_server.eval('rabbit_auth_backend_internal:delete_user(<<"limited">>, <<"tests">>).')

    async with Broker(BrokerConfig(port=0, vhosts=("/", "access"), compat=COMPAT)) as broker:
        broker.access.put_user("limited", hash_password("secret"))
        broker.access.put_permission("access", "limited", _PATTERNS)
        url = broker.url + "access"
        limited = url.replace("guest:guest", "limited:secret")
        got = await asyncio.to_thread(_see, url, limited)
        assert got == expected
        assert await asyncio.to_thread(_refused, limited.replace("/access", "/")) == refused
    assert any("refused for user 'limited'" in line for line in got)


async def test_an_empty_password_is_refused(rabbitmq_server: RabbitMQ) -> None:
    rabbitmq_server.eval(
        'rabbit_auth_backend_internal:add_user(<<"blank">>, <<"">>, <<"tests">>),'
        'rabbit_auth_backend_internal:set_permissions(<<"blank">>, <<"/">>,'
        ' <<".*">>, <<".*">>, <<".*">>, <<"tests">>).'
    )
    expected = await asyncio.to_thread(_refused, rabbitmq_server.url.replace("guest:guest", "blank:"))
    rabbitmq_server.eval('rabbit_auth_backend_internal:delete_user(<<"blank">>, <<"tests">>).')
    async with Broker(BrokerConfig(port=0, compat=COMPAT)) as broker:
        broker.access.put_user("blank", hash_password(""))
        broker.access.put_permission("/", "blank", Permission())
        assert await asyncio.to_thread(_refused, broker.url.replace("guest:guest", "blank:")) == expected
    assert any("ACCESS_REFUSED" in line for line in expected)


async def test_a_revoked_permission_applies_at_once() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        broker.access.put_user("ann", hash_password("secret"))
        broker.access.put_permission("/", "ann", Permission())
        url = broker.url.replace("guest:guest", "ann:secret")

        def publish_twice() -> list[str]:
            with Peer(url) as peer:
                peer.queue("q")
                peer.publish("", "q")
                peer.carried_out()
                asyncio.run_coroutine_threadsafe(_take_away(broker), loop).result(90)
                peer.publish("", "q")
                peer.carried_out()
            return peer.log

        loop = asyncio.get_running_loop()
        log = await asyncio.to_thread(publish_twice)
    assert ["refused for user 'ann'" in line for line in log[:3]] == [False, False, True]


async def _take_away(broker: Broker) -> None:
    broker.access.put_permission("/", "ann", Permission(write=""))
