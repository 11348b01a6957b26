"""Each script logs the same on RabbitMQ and on the embedded broker: replies, close codes, texts, messages.

RabbitMQ is 3.10.8, or 4.0.5 if RABBITRY_RABBITMQ_ROOT names a folder with it; the embedded broker is to behave alike.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from rabbitry.amqp.protocol import methods as m
from rabbitry.testing._broker import RunningBroker
from tests.differential import (  # noqa: F401 - importing registers the scripts
    argument_cases,
    basic_cases,
    closing_cases,
    connection_cases,
    exchange_cases,
    expiry_cases,
    hashing_cases,
    limit_cases,
    publish_cases,
    queue_cases,
    redeclare_cases,
    release_cases,
    requeue_cases,
    stream_cases,
)
from tests.differential.peer import Peer
from tests.differential.registry import CASES
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import COMPAT, RabbitMQ

DIFFERENT: Final[dict[str, str]] = {
    "frame_unknown_class": "RabbitMQ's reader crashes and closes the socket without a word; here it is 540",
    "frame_unknown_method": "RabbitMQ's reader crashes and closes the socket without a word; here it is 540",
    "frame_table_of_an_unknown_type": "RabbitMQ's reader crashes and closes the socket without a word; here it is 501",
    "declare_nan": "RabbitMQ's reader crashes and closes the socket without a word; here it is 501",
    "declare_infinity": "RabbitMQ's reader crashes and closes the socket without a word; here it is 501",
    "frame_deliver": "RabbitMQ waits for a content before it refuses a method that only it may send; here it is 503",
    "exchange_of_a_plugin_x-delayed-message": "a type of a plugin that the tests' RabbitMQ lacks",
    "exchange_of_a_plugin_system": "RabbitMQ calls a type invalid where Erlang has the word; here it is unknown",
    **{
        f"argument_queue_classic_x-queue-master-locator_{kind}": "RabbitMQ never answers; here it is 541, as for a word"
        for kind in ("floats", "decimals")
    },
    "stream_recover": "RabbitMQ's channel crashes with 541; here it is 540, as for basic.nack",
    "frame_body_too_long": "RabbitMQ waits for ever once a body is longer than its header says; here it is 501",
}
"""Scripts that differ on purpose, with the reason."""
if COMPAT == "4.0":
    _UTF_8 = "RabbitMQ prints text that is not ASCII in another way"
    DIFFERENT.update(
        {
            "greeting_3": "RabbitMQ speaks AMQP 1.0",
            "a_long_text_is_cut": "RabbitMQ cuts within a character, and then fails with 541",
            "published_names_that_are_no_utf8": _UTF_8,
            "redeclare_another_type_16": _UTF_8,
            "redeclare_more_16": _UTF_8,
            "binding_15": _UTF_8,
            "hash_weight_14": _UTF_8,
            "hash_weight_15": _UTF_8,
            "properties_18": _UTF_8,
            "properties_19": _UTF_8,
        }
    )


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    with RunningBroker(compat=COMPAT) as broker:
        yield broker.url


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded broker with a store: its answers wait for the commit."""
    with BrokerProcess("--data", str(tmp_path_factory.mktemp("broker")), "--compat", COMPAT) as broker:
        yield broker.url


@pytest.fixture(scope="module")
def rabbitmq(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    yield rabbitmq_server.add_vhost("differential")
    rabbitmq_server.delete_vhost("differential")


def _see(name: str, url: str, patience: float) -> list[str]:
    """Run a script, delete everything that it declared, and return its log."""
    with Peer(url, patience=patience) as peer:
        CASES[name](peer)
    with Peer(url, patience=patience) as cleaner:
        for queue in sorted(peer.queues - {""}):
            cleaner.call(m.QueueDelete(queue))
        for exchange in sorted(peer.exchanges):
            if exchange and not exchange.startswith("amq."):
                cleaner.call(m.ExchangeDelete(exchange))
    return peer.log


_SAME: Final = [name for name in CASES if name not in DIFFERENT]
_LONG: Final = [name for name in _SAME if name.startswith("argument_")]


@pytest.mark.parametrize("name", [name for name in _SAME if name not in _LONG])
def test_both_brokers_behave_the_same(name: str, embedded: str, durable: str, rabbitmq: str) -> None:
    _compare(name, embedded, durable, rabbitmq)


@pytest.mark.faults
@pytest.mark.parametrize("name", _LONG)
def test_both_brokers_accept_and_refuse_the_same_arguments(
    name: str, embedded: str, durable: str, rabbitmq: str
) -> None:
    _compare(name, embedded, durable, rabbitmq)


def _compare(name: str, embedded: str, durable: str, rabbitmq: str) -> None:
    # On a busy machine a late answer looks like a missing one: check each difference again, with longer waits.
    for patience in (1, 5, 25):
        with ThreadPoolExecutor(3) as pool:
            urls = [rabbitmq, embedded, durable]
            expected, got, got_durable = pool.map(_see, [name] * 3, urls, [patience] * 3)
        if got == got_durable == expected:
            break
    assert expected
    assert got == expected
    assert got_durable == expected


def test_at_least_the_known_number_of_scripts_exists() -> None:
    assert len(CASES) >= 300
    assert set(DIFFERENT) <= set(CASES)
