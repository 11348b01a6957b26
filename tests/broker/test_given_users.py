"""Users and virtual hosts in a broker's settings, with others in its data folder."""

from pathlib import Path

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.exceptions import LoginRefused, UsageError, VirtualHostRefused


async def _logs_in(broker: Broker, login: str, vhost: str = "") -> bool:
    try:
        async with rabbitry.connect(f"amqp://{login}@127.0.0.1:{broker.port}/{vhost}"):
            return True
    except (LoginRefused, VirtualHostRefused):
        return False


async def test_a_password_that_is_given_replaces_the_stored_one(tmp_path: Path) -> None:
    for password in ("old", "new"):
        async with Broker(BrokerConfig(port=0, users={"ann": password}, data=tmp_path)) as broker:
            assert await _logs_in(broker, f"ann:{password}")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert await _logs_in(broker, "ann:new")
        assert not await _logs_in(broker, "ann:old")
        assert not await _logs_in(broker, "guest:guest")


async def test_a_user_that_is_given_later_may_do_everything(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        pass
    async with (
        Broker(BrokerConfig(port=0, users={"ann": "x"}, data=tmp_path)) as broker,
        rabbitry.connect(f"amqp://ann:x@127.0.0.1:{broker.port}/") as connection,
    ):
        channel = await connection.channel()
        await channel.declare_queue("tasks", durable=True)
        await channel.publish(b"1", routing_key="tasks")


async def test_a_virtual_host_that_is_given_later_can_be_entered(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        pass
    async with Broker(BrokerConfig(port=0, vhosts=("/", "later"), data=tmp_path)) as broker:
        assert await _logs_in(broker, "guest:guest", "later")


async def test_changes_to_the_default_user_survive_a_restart(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, users={"guest": "guest", "ann": "x"}, data=tmp_path)) as broker:
        broker.delete_user("guest")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert not await _logs_in(broker, "guest:guest")
        assert await _logs_in(broker, "ann:x")


@pytest.mark.parametrize("users", [None, {"guest": "secret"}])
def test_a_reachable_address_needs_a_user_other_than_guest(users: dict[str, str] | None) -> None:
    with pytest.raises(UsageError, match="give it another user and a password"):
        Broker(BrokerConfig(host="0.0.0.0", port=0, users=users))
