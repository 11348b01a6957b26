"""The kinds of queue, their limits and times-to-live, each on its own."""

import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._queues import ClassicQueue, QuorumQueue
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.expiry import expires_at
from rabbitry.broker._queues.limits import Limits
from rabbitry.broker.message import Message


async def test_each_type_of_queue_has_a_class_of_its_own() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("usual")
        await channel.declare_queue("classic", durable=True, arguments={"x-queue-type": "classic"})
        await channel.declare_queue("quorum", durable=True, arguments={"x-queue-type": "quorum"})
        kinds = {name: type(queue) for name, queue in broker.vhosts["/"].queues.items()}
    assert kinds == {"usual": ClassicQueue, "classic": ClassicQueue, "quorum": QuorumQueue}


async def test_a_queue_restored_from_the_store_is_of_its_kind(tmp_path: Path) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("classic", durable=True)
        await channel.declare_queue("quorum", durable=True, arguments={"x-queue-type": "quorum"})
    async with Broker(config) as broker:
        kinds = {name: type(queue) for name, queue in broker.vhosts["/"].queues.items()}
        assert {queue.vhost.journal for queue in broker.vhosts["/"].queues.values()} == {broker.journal}
    assert kinds == {"classic": ClassicQueue, "quorum": QuorumQueue}


@pytest.mark.parametrize(
    ("rules", "passed", "room"),
    [
        (Rules(), False, True),
        (Rules(max_length=2), False, False),
        (Rules(max_length=1), True, False),
        (Rules(max_length=3), False, True),
        (Rules(max_length_bytes=20), False, False),
        (Rules(max_length_bytes=25), False, True),
        (Rules(max_length_bytes=19), True, False),
        (Rules(max_length=3, max_length_bytes=24), False, False),
        (Rules(max_length=1, overflow="reject-publish"), False, False),
        (Rules(max_length=1, overflow="reject-publish-dlx"), False, False),
    ],
)
def test_limits_count_messages_and_bytes(rules: Rules, passed: bool, room: bool) -> None:
    limits = Limits(rules)
    assert limits.are_passed(2, 20) == passed
    assert limits.have_room(2, 20, 5) == room
    assert limits.refuse == (rules.overflow != "drop-head")
    assert limits.dead_letter_refused == (rules.overflow == "reject-publish-dlx")


@pytest.mark.parametrize(
    ("own", "of_the_queue", "milliseconds"),
    [(None, 5000, 5000), (7000, None, 7000), (7000, 5000, 5000), (3000, 5000, 3000), (0, 5000, 0), (3000, 0, 0)],
)
def test_the_smaller_time_to_live_counts(own: int | None, of_the_queue: int | None, milliseconds: int) -> None:
    message = Message(b"", b"", b"", False)
    message.expiration = own
    before = time.time()
    at = expires_at(message, of_the_queue)
    assert before + milliseconds / 1000 <= at <= time.time() + milliseconds / 1000


def test_a_message_without_a_time_to_live_never_expires() -> None:
    assert expires_at(Message(b"", b"", b"", False), None) == 0.0
