"""The private RabbitMQ: isolated, and restarted with its data."""

import contextlib
import socket
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
