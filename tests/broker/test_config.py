"""The settings of an embedded broker."""

import dataclasses
import socket
from typing import Any

import pytest

from rabbitry.broker import Broker, BrokerConfig
from rabbitry.exceptions import UsageError


def test_a_broker_without_settings_has_the_defaults() -> None:
    broker = Broker()
    assert broker.config == BrokerConfig()
    assert (broker.host, broker.port, broker.config.largest_message) == ("127.0.0.1", 5672, 128 << 20)
    assert broker.url == "amqp://guest:guest@127.0.0.1:5672/"


def test_settings_cannot_be_changed() -> None:
    config = BrokerConfig(heartbeat=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.heartbeat = 6  # type: ignore[misc] # it is frozen
    assert dataclasses.replace(config, heartbeat=6).heartbeat == 6


def test_passwords_are_not_shown() -> None:
    assert "hidden" not in repr(BrokerConfig(users={"ann": "hidden"}))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"port": 65536}, "port=65536 is out of range: use 0 to 65535"),
        ({"port": -1}, "port=-1 is out of range"),
        ({"management_port": 70000}, "management_port=70000 is out of range"),
        ({"tls_port": -1}, "tls_port=-1 is out of range"),
        ({"heartbeat": 65536}, "heartbeat=65536 is out of range"),
        ({"frame_max": 4095}, "frame_max=4095 is out of range: use 4096 to"),
        ({"channel_max": 0}, "channel_max=0 is out of range"),
        ({"max_message_size": -1}, "max_message_size=-1 is out of range: use at least 0"),
        ({"memory_limit": -1}, "memory_limit=-1 is out of range"),
        ({"disk_free_limit": -1}, "disk_free_limit=-1 is out of range"),
        ({"close_timeout": float("nan")}, "close_timeout=nan is out of range"),
        ({"port": "5"}, "broker setting port='5' is not a number: use 0 to 65535"),
        ({"close_timeout": "1"}, "broker setting close_timeout='1' is not a number: use at least 0"),
        ({"vhosts": ()}, "a broker needs a list of virtual hosts"),
        ({"vhosts": "work"}, "a broker needs a list of virtual hosts"),
        ({"vhosts": ["/", ""]}, "a virtual host can't be called '': use 1 to 255 bytes"),
        ({"vhosts": ["é" * 128]}, "use 1 to 255 bytes"),
        ({"users": {}}, "a broker needs a user that may log in"),
        ({"users": {"ann": ""}}, "the user 'ann' can't log in with an empty password"),
        ({"host": ""}, "all addresses can be reached by others"),
        ({"host": "0.0.0.0", "users": {"guest": "other"}}, "0.0.0.0 can be reached by others"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as refused:
        BrokerConfig(**settings)
    assert why in str(refused.value)


def test_an_ipv6_address_is_in_brackets_in_the_url() -> None:
    assert Broker(BrokerConfig(host="::1")).url == "amqp://guest:guest@[::1]:5672/"


def test_each_given_socket_is_checked_for_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own, socket.create_server(("0.0.0.0", 0)) as reached:
        with pytest.raises(UsageError, match=r"a broker on 0\.0\.0\.0 can be reached by others"):
            BrokerConfig(listeners=[own, reached])


async def test_the_broker_listens_on_the_sockets_that_it_is_given_and_closes_them() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with Broker(BrokerConfig(listeners=[listener])) as broker:
        assert broker.port == listener.getsockname()[1]
    assert listener.fileno() == -1
