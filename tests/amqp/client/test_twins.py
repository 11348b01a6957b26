"""The blocking twins have the whole of the asyncio API: the same names, parameters and defaults."""

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.amqp import client
from rabbitry.amqp.client._settlements import Processing
from rabbitry.amqp.client.blocking.consuming import BlockingProcessing
from rabbitry.exceptions import ConnectionClosed, RequestTimeout, UsageError
from rabbitry.flow.blocking import BlockingPublisher
from rabbitry.flow.publisher import Publisher

_TWINS: list[tuple[type, type]] = [
    (client.Connection, client.BlockingConnection),
    (client.Channel, client.BlockingChannel),
    (client.Consumer, client.BlockingConsumer),
    (client.Consumers, client.BlockingConsumers),
    (client.Delivery, client.BlockingDelivery),
    (client.Transaction, client.BlockingTransaction),
    (Processing, BlockingProcessing),
    (Publisher, BlockingPublisher),
]
_OF_THE_PACKAGE: dict[type, set[str]] = {
    Processing: {"settle"},
    BlockingProcessing: {"settle"},
    Publisher: {"send_body"},
}
"""Names that other modules of the package use, and no user."""
_BLOCKING_ALONE: dict[type, set[str]] = {client.BlockingConsumer: {"next"}, client.BlockingConsumers: {"next"}}
"""`next(timeout)` is `asyncio.timeout` around `anext`."""
_RECEIPTS = {"Receipt", "BlockingReceipt"}
"""Futures of two libraries, which have names of their own; tests/amqp/client/test_receipts.py compares them."""
_PROTOCOL = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}


def _names(of: type) -> set[str]:
    """Return the public names of a class and its instances."""
    found = set(dir(of))
    for base in of.__mro__[:-1]:
        if "__init__" in vars(base):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base.__init__)))  # type: ignore[misc] # of the class itself
            found |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
    return {name for name in found if not name.startswith("_")} - _OF_THE_PACKAGE.get(of, set())


def _parameters(of: Callable[..., object]) -> list[tuple[str, object, object]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(of).parameters.values()
        if parameter.name not in ("self", "trace", "traceback")
    ]


def _differences(of: type, twin: type) -> list[str]:
    """Return the differences: names that the twin lacks or has in addition, and other parameters."""
    found = [f"{name} is missing" for name in _names(of) - _names(twin)]
    found += [f"{name} is the twin's alone" for name in _names(twin) - _names(of) - _BLOCKING_ALONE.get(twin, set())]
    for name in _names(of) & _names(twin):
        ours, theirs = getattr(of, name, None), getattr(twin, name, None)
        if inspect.isfunction(ours) != inspect.isfunction(theirs):
            found.append(f"{name} is a method of one alone")
        elif inspect.isfunction(ours) and inspect.isfunction(theirs):
            if inspect.iscoroutinefunction(theirs):
                found.append(f"{name} is a coroutine function")
            if _parameters(ours) != _parameters(theirs):
                found.append(f"{name} has {_parameters(theirs)}, not {_parameters(ours)}")
    found += [
        f"{theirs} is missing" for ours, theirs in _PROTOCOL.items() if hasattr(of, ours) != hasattr(twin, theirs)
    ]
    return sorted(found)


@pytest.mark.parametrize(("of", "twin"), _TWINS, ids=lambda of: of.__name__)
def test_a_twin_has_the_names_and_parameters(of: type, twin: type) -> None:
    assert _differences(of, twin) == []
    assert twin.__name__ == f"Blocking{of.__name__}"


@pytest.mark.parametrize("of", _OF_THE_PACKAGE, ids=lambda of: of.__name__)
def test_names_of_the_package_that_are_listed_exist(of: type) -> None:
    listed = _OF_THE_PACKAGE[of]
    before, _OF_THE_PACKAGE[of] = _OF_THE_PACKAGE[of], set()
    try:
        assert listed <= _names(of)
    finally:
        _OF_THE_PACKAGE[of] = before


def test_the_functions_that_connect_take_the_same() -> None:
    assert _parameters(rabbitry.connect_blocking) == _parameters(rabbitry.connect)


def test_each_public_class_has_a_twin_or_works_in_both() -> None:
    classes = {name for name in client.__all__ if isinstance(getattr(client, name), type)}
    values = {"BrokerURL", "Properties", "QueueInfo", "RecoveryEvent", *_RECEIPTS}
    twins = {of.__name__ for of, _ in _TWINS} | {twin.__name__ for _, twin in _TWINS}
    assert classes - values <= twins


def test_a_method_without_its_twin_and_another_default_are_found() -> None:
    class Asyncio:
        def __init__(self) -> None:
            self.attribute = 1

        async def new(self) -> None: ...

        async def wait(self, *, timeout: float | None = None) -> None: ...

        async def __aenter__(self) -> None: ...

    class Blocking:
        def wait(self, *, timeout: float | None = 5.0) -> None: ...

        def more(self) -> None: ...

    found = _differences(Asyncio, Blocking)
    assert [text.partition(" ")[0] for text in found] == ["__enter__", "attribute", "more", "new", "wait"]


def test_the_connection_waits_for_its_end_and_confirms_of_all_channels(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url, request_timeout=70.0) as connection:
        assert connection.url.hosts == client.parse_url(broker_url).hosts
        assert connection.server_version >= (3, 10)
        assert connection.frame_limit > 1000
        connection.request_timeout += 1
        assert (connection.request_timeout, connection.publish_timeout) == (71.0, 60.0)
        with pytest.raises(RequestTimeout, match="still open"):
            connection.wait_closed(timeout=0.01)
        first, second = connection.channel(), connection.channel()
        queue = first.declare_queue(exclusive=True).name
        for channel in (first, second):
            channel.send(b"x", routing_key=queue)
        second.send(b"x", routing_key="no-such-queue")
        with pytest.raises(ExceptionGroup) as raised:
            connection.wait_for_confirms()
        assert [type(error) for error in raised.value.exceptions] == [rabbitry.PublishReturned]
        assert first.purge_queue(queue) == 2
        connection.close(timeout=90.0)
        connection.wait_closed()
        assert isinstance(connection.close_reason, ConnectionClosed)


async def test_wait_closed_returns_when_another_thread_closes(embedded_url: str) -> None:
    connection = await asyncio.to_thread(rabbitry.connect_blocking, embedded_url)
    waiting = asyncio.create_task(asyncio.to_thread(connection.wait_closed))
    await asyncio.to_thread(connection.close)
    await waiting


def test_a_consumer_is_started_and_cancelled_without_a_block(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection, connection.channel() as channel:
        queue = channel.declare_queue(exclusive=True).name
        for body in (b"1", b"2"):
            channel.publish(body, routing_key=queue)
        channel.limit(1)
        consumer = channel.consume(queue, consumer_tag="mine", arguments={"x-priority": 5})
        assert (consumer.queue, consumer.consumer_tag, consumer.exclusive) == (queue, "mine", False)
        assert (consumer.no_ack, consumer.restore, consumer.arguments) == (False, False, {"x-priority": 5})
        with pytest.raises(UsageError, match="iterate within"):
            consumer.next()
        consumer.start(timeout=90.0)
        delivery = consumer.next(timeout=90.0)
        assert (delivery.body, delivery.consumer_tag) == (b"1", "mine")
        with pytest.raises(RequestTimeout):
            consumer.next(timeout=0.05)
        consumer.cancel(give_back=False)
        assert list(consumer) == []
        delivery.ack()  # which is still the caller's
        got = channel.get(queue)
        assert got is not None
        assert (got.body, got.consumer_tag) == (b"2", "")


def test_a_script_gets_the_receipts_of_a_publisher(broker_url: str) -> None:
    app = rabbitry.App("twins")

    @app.stage("in")
    def handle(text: str) -> None: ...

    app.output("nowhere")
    with app.publisher_blocking(broker_url) as publisher:
        assert publisher.spec.name == "twins"
        receipt = publisher.send("x", key="in")
        assert receipt.message_id
        receipt.result(60)
        assert receipt.failure is None
        publisher.wait_for_confirms()
        with pytest.raises(UsageError):
            publisher.send("x", key="unknown")
        seen = publisher.send("x", key="nowhere")
        assert isinstance(seen.exception(60), rabbitry.PublishReturned)
        unseen = publisher.send("x", key="nowhere")
        with pytest.raises(ExceptionGroup):
            publisher.wait_for_confirms()
        assert isinstance(unseen.exception(60), rabbitry.PublishReturned)
    with pytest.raises(ExceptionGroup), app.publisher_blocking(broker_url) as publisher:
        publisher.send("x", key="nowhere")
