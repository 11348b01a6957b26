"""The table of releases: what the broker answers with compat 4.0, word for word what RabbitMQ 4.0.5 answered.

tests/differential compares both brokers; these few scripts hold without a RabbitMQ 4.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import httpx
import pytest

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.compat import RELEASES, Compat
from rabbitry.cli import broker as command
from rabbitry.exceptions import UsageError
from rabbitry.testing._broker import RunningBroker
from tests.differential import (  # noqa: F401 - importing registers the scripts
    basic_cases,
    connection_cases,
    exchange_cases,
    publish_cases,
    release_cases,
)
from tests.differential.peer import Peer
from tests.differential.registry import CASES

_CLOSED: Final = "ChannelClose(reply_code=406, reply_text="
_BODY: Final = re.compile(r"b'(\d+:\w+)'")
_ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    # Scripts, with parts of the lines that RabbitMQ 4.0.5 logged, in their order.
    "greeting_0": ("ConnectionStart(b'ANONYMOUS AMQPLAIN PLAIN', b'en_US')",),
    "greeting_2": (r"protocol header b'AMQP\x03\x01\x00\x00'", "socket closed"),
    "login_anonymous": ("ConnectionTune(channel_max=2047, frame_max=131072, heartbeat=60)",),
    "tune_10_4096": ("frame_max=131072", "ConnectionOpenOk"),
    "exchange_type_x-unknown": (f"{_CLOSED}\"PRECONDITION_FAILED - unknown exchange type 'x-unknown'\"",),
    "declared_arguments_are_compared_with_the_type": (
        "QueueDeclareOk",
        "QueueDeclareOk",
        "received 'quorum' but current is 'classic'",
        "received none but current is 'classic'",
    ),
    "message_above_16_mib": (
        f"{_CLOSED}'PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216'",
        "message_count=0",
    ),
    "tx_delete_queue_before_the_commit": (f"{_CLOSED}'PRECONDITION_FAILED - partial tx completion', class_id=90",),
    "transaction_routes_when_published": ("message_count=0", "TxCommitOk", "message_count=0"),
    "properties_7": ("{expiration: '100000'}",),
    "properties_24": ("{delivery_mode: 0}",),
    "headers_13": ("{headers: {a: 1.0}} b'4'", "BasicGetEmpty"),
    "quorum_returned_22_times": (
        "{} b'0:None'",
        "{headers: {x-delivery-count: 20}} b'0:None'",
        "{} b'1:None'",
        "reason: 'delivery_limit', routing-keys: ['q'], time: TIME}], x-first-death-exchange: ''",
    ),
    "quorum_returned_with_limit_-1": (
        "{} b'0:None'",
        "{} b'1:None'",
        "{headers: {x-delivery-count: 1}} b'0:None'",
        "{headers: {x-delivery-count: 2}} b'1:None'",
    ),
    "deaths_published_again": (
        "x-death: [{count: 1, ",
        "x-last-death-exchange: '', x-last-death-queue: 'q', x-last-death-reason: 'rejected'",
        "x-death: [{count: 1, ",
        "x-death: [{count: 1, ",
        "x-death: [{count: 1, ",
    ),
}
_ORDERS: Final[dict[str, str]] = {
    "quorum_priorities": "2:5 4:9 0:0 5:255 7:6 1:4 9:7 10:8 3:None 11:5 6:1 8:None 12:None 13:None",
    "quorum_priorities_after_other_messages": (
        "0:None 1:None 0:0 2:5 4:9 1:4 5:255 7:6 3:None 9:7 10:8 6:1 11:5 8:None 12:None 13:None"
    ),
    "quorum_priorities_and_returns": "0:9 2:9 1:0 4:9 1:0 0:9 6:9 3:0 5:0",
    "quorum_priorities_beyond_a_length": "6:9 3:0 5:0 0:9 2:9 1:0 4:9",
    "quorum_priorities_to_a_consumer": "2:9 3:9 0:0 4:9 6:9 1:0 5:0",
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with RunningBroker(compat="4.0") as broker:
        yield broker


def _log(script: str, broker: RunningBroker) -> list[str]:
    broker.reset()
    with Peer(broker.url) as peer:
        CASES[script](peer)
    return peer.log


@pytest.mark.parametrize("script", _ANSWERS)
def test_scripts_get_the_answers_of_rabbitmq_4(script: str, broker: RunningBroker) -> None:
    lines = iter(_log(script, broker))
    for part in _ANSWERS[script]:
        assert any(part in line for line in lines), part


@pytest.mark.parametrize("script", _ORDERS)
def test_a_quorum_queue_of_release_4_has_two_priorities(script: str, broker: RunningBroker) -> None:
    assert _BODY.findall("\n".join(_log(script, broker))) == _ORDERS[script].split()


def test_tools_read_the_release(broker: RunningBroker) -> None:
    broker.reset()
    with (
        httpx.Client(base_url=f"{broker.management_url}api/", auth=("guest", "guest"), timeout=60) as tool,
        Peer(broker.url) as peer,
    ):
        peer.queue("q")
        overview = tool.get("overview").json()
        versions = [overview[name] for name in ("management_version", "product_version", "rabbitmq_version")]
        assert versions == ["4.0.5"] * 3
        assert tool.get("queues/%2F/q").json()["arguments"] == {"x-queue-type": "classic"}
        flags = {flag["name"]: flag["state"] for flag in tool.get("feature-flags").json()}
        assert flags["rabbitmq_4.0.0"] == "enabled"
        phases = {item["name"]: item["deprecation_phase"] for item in tool.get("deprecated-features").json()}
        assert phases["transient_nonexcl_queues"] == phases["global_qos"] == "permitted_by_default"
        mirrored = {"pattern": "x", "definition": {"ha-mode": "all"}}
        reason = tool.put("policies/%2F/ha", json=mirrored).json()["reason"]
        assert reason.endswith('&lt;&lt;"all"&gt;&gt;}] are not recognised policy settings\n')


def _before_the_restart(url: str) -> None:
    """Put messages of both priorities into a quorum queue, and one with a client's `x-death` into a classic one."""
    with Peer(url) as peer:
        peer.queue("quorum", durable=True, x_queue_type="quorum")
        dead = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": "dead"}
        peer.queue("classic", durable=True, **dead)
        peer.queue("dead", durable=True)
        peer.call(m.ConfirmSelect())
        for body, priority in ((b"1:no", 0), (b"2:no", None), (b"3:hi", 9), (b"4:hi", 5)):
            peer.publish("", "quorum", body, Properties(priority=priority, delivery_mode=2))
        forged: Table = {"x-death": [{"queue": "classic", "reason": "rejected", "count": 7}]}
        peer.publish("", "classic", b"x", Properties(headers=forged, delivery_mode=2))
        peer.quiet()
        peer.until_it_has("quorum", 4)
        peer.until_it_has("classic", 1)


def test_priorities_and_foreign_deaths_survive_a_restart(tmp_path: Path) -> None:
    with RunningBroker(compat="4.0", data=tmp_path) as broker:
        _before_the_restart(broker.url)
        broker.restart()
        with Peer(broker.url) as peer:
            for _ in range(4):
                peer.get("quorum")
            assert _BODY.findall("\n".join(peer.log)) == ["3:hi", "4:hi", "1:no", "2:no"]
            peer.get("classic", no_ack=False)
            assert "count: 7" in peer.log[-1]
            peer.send(m.BasicReject(peer.tag, requeue=False))
            peer.until_it_has("dead", 1)
            peer.get("dead")
            assert "x-death: [{count: 1, exchange: '', queue: 'classic', reason: 'rejected'" in peer.log[-1]


def test_a_folder_opens_with_another_release(tmp_path: Path) -> None:
    with RunningBroker(compat="4.0", data=tmp_path) as broker, Peer(broker.url) as peer:
        peer.queue("placed", durable=True, x_queue_leader_locator="balanced")
        peer.call(m.ConfirmSelect())
        peer.publish("", "placed", b"0:kept", Properties(delivery_mode=2))
        peer.until_it_has("placed", 1)
    with RunningBroker(data=tmp_path) as broker, Peer(broker.url) as peer:
        peer.get("placed")
    assert _BODY.findall(peer.log[0]) == ["0:kept"]


def test_the_command_knows_every_release() -> None:
    assert get_args(get_args(command.Compat)[0]) == get_args(Compat) == tuple(RELEASES)


def test_an_unknown_release_is_refused_and_3_10_is_the_default() -> None:
    with pytest.raises(UsageError, match=r"broker setting compat='3\.9' is unknown: use '3\.10' or '4\.0'"):
        BrokerConfig(compat="3.9")  # type: ignore[arg-type] # not a release
    assert Broker().config.release is RELEASES["3.10"]
    assert BrokerConfig(compat="4.0", max_message_size=5).largest_message == 5
