"""The private RabbitMQ: isolated, and restarted with its data."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.support.rabbitmq import RabbitMQ


def test_vhosts_are_separate(rabbitmq_server: RabbitMQ, rabbitmq_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        connection.channel().queue_declare("here")
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as elsewhere:
            channel = elsewhere.channel()
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue 'here'"):
                channel.queue_declare("here", passive=True)


def test_all_ports_are_on_the_loopback_interface(rabbitmq_server: RabbitMQ) -> None:
    # /proc/net/tcp: local address, state 0A is LISTEN; the inode belongs to a descriptor of the process.
    inodes = set()
    for link in Path(f"/proc/{rabbitmq_server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(link.readlink().name)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    loopback = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert len(listening) >= 2
    assert {address.split(":")[0] for address in listening} == {loopback}


@pytest.fixture
def vhost(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    name = "emptied"
    rabbitmq_server.add_vhost(name)
    yield name
    rabbitmq_server.delete_vhost(name)


def test_an_emptied_vhost_has_nothing_of_before(rabbitmq_server: RabbitMQ, vhost: str) -> None:
    names = (
        f'V = <<"{vhost}">>, {{rabbit_amqqueue:list_names(V), rabbit_binding:list(V),'
        " lists:sort([element(2, Exchange) || Exchange <- rabbit_exchange:list(V)])}."
    )
    before = rabbitmq_server.eval(names)
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url_of(vhost))) as connection:
        channel = connection.channel()
        channel.exchange_declare("exchange", "topic", durable=True)
        channel.exchange_bind("exchange", "amq.topic", "#")
        for kind in ("classic", "quorum", "stream"):
            channel.queue_declare(kind, durable=True, arguments={"x-queue-type": kind})
            channel.queue_bind(kind, "exchange", "key")
            channel.basic_publish("exchange", "key", b"message")
    assert rabbitmq_server.eval(names) != before
    assert rabbitmq_server.empty_vhost(vhost)
    assert rabbitmq_server.eval(names) == before


@pytest.mark.parametrize(
    "change",
    [
        'rabbit_policy:set(V, <<"p">>, <<".*">>, [{<<"max-length">>, 1}], 0, <<"all">>, <<"tests">>)',
        'rabbit_policy:set_op(V, <<"p">>, <<".*">>, [{<<"max-length">>, 1}], 0, <<"all">>, <<"tests">>)',
        'rabbit_vhost_limit:set(V, [{<<"max-queues">>, 1}], <<"tests">>)',
        "rabbit_auth_backend_internal:set_topic_permissions("
        '<<"guest">>, V, <<"amq.topic">>, <<"^a">>, <<"^a">>, <<"tests">>)',
        'rabbit_auth_backend_internal:clear_permissions(<<"guest">>, V, <<"tests">>)',
        'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<"">>, <<".*">>, <<".*">>, <<"tests">>)',
        'rabbit_binding:add({binding, {resource, V, exchange, <<"amq.topic">>}, <<"key">>,'
        ' {resource, V, exchange, <<"amq.fanout">>}, []}, <<"tests">>)',
    ],
)
def test_a_vhost_with_other_settings_is_not_as_new(rabbitmq_server: RabbitMQ, vhost: str, change: str) -> None:
    assert rabbitmq_server.empty_vhost(vhost)
    assert rabbitmq_server.eval(f'V = <<"{vhost}">>, {change}.') == "ok"
    assert not rabbitmq_server.empty_vhost(vhost)


def test_a_vhost_in_use_is_not_as_new(rabbitmq_server: RabbitMQ, vhost: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url_of(vhost))):
        assert not rabbitmq_server.empty_vhost(vhost)


@pytest.mark.faults
def test_a_restarted_server_has_its_data(own_rabbitmq: RabbitMQ) -> None:
    with pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True)
    own_rabbitmq.stop()
    own_rabbitmq.start()
    names = "[binary_to_list(Name) || {resource, _, queue, Name} <- rabbit_amqqueue:list_names()]."
    assert own_rabbitmq.eval(names) == '["kept"]'


def test_a_failing_eval_raises_its_error(rabbitmq_server: RabbitMQ) -> None:
    with pytest.raises(RuntimeError, match="badmatch"):
        rabbitmq_server.eval("1 = 2.")


def test_a_reset_server_is_empty(own_rabbitmq: RabbitMQ) -> None:
    state = (
        "{rabbit_vhost:list_names(), rabbit_auth_backend_internal:list_users(),"
        " rabbit_amqqueue:list_names(), application:get_env(rabbit, consumer_timeout)}."
    )
    before = own_rabbitmq.eval(state)
    own_rabbitmq.add_vhost("more")
    own_rabbitmq.add_user("ann", "secret")
    own_rabbitmq.eval("application:set_env(rabbit, consumer_timeout, 500).")
    with pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url)) as connection:
        connection.channel().queue_declare("kept", durable=True)
    assert own_rabbitmq.eval(state) != before
    own_rabbitmq.reset()
    assert own_rabbitmq.eval(state) == before
