"""The blocking client: the same names without await, from any thread, on both brokers."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

import rabbitry
from rabbitry.exceptions import NotFound
from rabbitry.runtime.io_thread import IOThread
from tests.support.proxy import FaultProxy
from tests.support.waiting import WITHIN, eventually_blocking


def test_publish_get_and_consume(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        assert connection.server_properties["product"] == "RabbitMQ"
        channel = connection.channel(prefetch=10)
        queue = channel.declare_queue(exclusive=True).name
        channel.publish(b"one", routing_key=queue, properties=rabbitry.Properties(message_id="m"))
        delivery = channel.get(queue)
        assert delivery is not None
        assert (delivery.body, delivery.routing_key, delivery.exchange) == (b"one", queue, "")
        assert delivery.properties.message_id == "m"
        delivery.ack()
        with pytest.raises(rabbitry.AlreadySettled):
            delivery.nack()
        for number in range(100):
            channel.send(b"%d" % number, routing_key=queue)
        channel.wait_for_confirms()
        with channel.consume(queue) as deliveries:
            for number, delivery in enumerate(deliveries):
                assert delivery.body == b"%d" % number
                delivery.ack()
                if number == 99:
                    break
        assert channel.declare_queue(queue, passive=True).message_count == 0
    assert not connection.is_open
    connection.close()


def test_exchanges_and_bindings_are_declared_and_removed(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection, connection.channel() as channel:
        channel.declare_exchange("first", "topic", auto_delete=False)
        channel.declare_exchange("second", "direct", auto_delete=False)
        queue = channel.declare_queue(exclusive=True).name
        channel.bind_exchange("second", "first", "a.#")
        channel.bind_queue(queue, "second", "a.b")
        channel.publish(b"1", exchange="first", routing_key="a.b")
        assert channel.purge_queue(queue) == 1
        channel.unbind_queue(queue, "second", "a.b")
        with pytest.raises(rabbitry.PublishReturned, match="NO_ROUTE"):
            channel.publish(b"2", exchange="second", routing_key="a.b")
        channel.bind_queue(queue, "second", "a.b")
        channel.unbind_exchange("second", "first", "a.#")
        with pytest.raises(rabbitry.PublishReturned, match="NO_ROUTE"):
            channel.publish(b"3", exchange="first", routing_key="a.b")
        channel.delete_exchange("second")
        with pytest.raises(NotFound, match="second"):
            channel.publish(b"4", exchange="second", routing_key="a.b")


def test_leaving_the_consumer_requeues_unsettled_messages(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel(prefetch=5)
        queue = channel.declare_queue(exclusive=True).name
        for number in range(8):
            channel.send(b"%d" % number, routing_key=queue)
        channel.wait_for_confirms()
        with channel.consume(queue) as deliveries:
            deliveries.next().ack()
            assert deliveries.next(timeout=90).body == b"1"
        eventually_blocking(lambda: channel.declare_queue(queue, passive=True).message_count == 7, "seven messages")


def test_waiting_for_a_delivery_times_out(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True).name
        with channel.consume(queue) as deliveries, pytest.raises(rabbitry.RequestTimeout, match="no delivery within"):
            deliveries.next(timeout=0.01)
        with pytest.raises(StopIteration):
            deliveries.next()


def test_errors_are_those_of_the_asyncio_client(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        with pytest.raises(rabbitry.PublishReturned):
            channel.publish(b"x", routing_key="nowhere")
        lost = channel.send(b"x", routing_key="nowhere")
        with pytest.raises(rabbitry.PublishReturned):
            lost.result(90)
        channel.send(b"x", routing_key="nowhere")
        with pytest.raises(ExceptionGroup):
            channel.wait_for_confirms()
        with pytest.raises(rabbitry.ChannelClosed, match="no queue 'missing'"):
            channel.declare_queue("missing", passive=True)
        with pytest.raises(rabbitry.ChannelClosed):
            channel.publish(b"x", routing_key="q")
        channel.open()
        queue = channel.declare_queue(exclusive=True).name
        other = connection.channel()
        with channel.consume(queue) as deliveries:
            other.delete_queue(queue)
            with pytest.raises(rabbitry.ConsumerCancelled):
                deliveries.next(timeout=90)
    with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
        connection.channel()


def test_a_refused_connection_raises_connect_failed() -> None:
    before = set(threading.enumerate())
    with pytest.raises(rabbitry.ConnectFailed):
        rabbitry.connect_blocking("amqp://127.0.0.1:1")
    assert [thread for thread in set(threading.enumerate()) - before if thread.name == "rabbitry-io"] == []


def test_many_threads_share_a_channel(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel(prefetch=50)
        queue = channel.declare_queue(exclusive=True).name
        seen: list[bytes] = []
        failures: list[BaseException] = []

        def publish(worker: int) -> None:
            try:
                for number in range(50):
                    channel.send(b"%d.%d" % (worker, number), routing_key=queue)
                channel.publish(b"%d.last" % worker, routing_key=queue)
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        def consume() -> None:
            try:
                for delivery in deliveries:
                    seen.append(delivery.body)
                    delivery.ack()
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        with channel.consume(queue) as deliveries:
            publishers = [threading.Thread(target=publish, args=(worker,)) for worker in range(4)]
            consumers = [threading.Thread(target=consume) for _ in range(3)]
            for thread in (*publishers, *consumers):
                thread.start()
            for thread in publishers:
                thread.join(90)
            eventually_blocking(lambda: len(seen) == 4 * 51, "all messages")
            eventually_blocking(lambda: channel.declare_queue(queue, passive=True).message_count == 0, "an empty queue")
        for thread in consumers:
            thread.join(90)
        assert failures == []
        assert len(set(seen)) == 4 * 51


def test_the_blocking_client_recovers(broker_url: str) -> None:
    events: list[str] = []
    address = urlsplit(broker_url)
    proxy = FaultProxy(address.port or 0)
    with contextlib.ExitStack() as stack:
        io = IOThread("proxy")
        stack.callback(io.stop)
        io.run(proxy.__aenter__())
        stack.callback(lambda: io.run(proxy.__aexit__(None, None, None)))
        url = broker_url.replace(f":{address.port}/", f":{proxy.port}/")
        connection = rabbitry.connect_blocking(url, on_recovery=lambda event: events.append(event.kind))
        stack.enter_context(connection)
        channel = connection.channel(prefetch=5)
        queue = channel.declare_queue(exclusive=True).name
        with channel.consume(queue) as deliveries:
            channel.publish(b"before", routing_key=queue)
            old = deliveries.next(timeout=90)
            io.run(proxy.cut())
            eventually_blocking(lambda: "recovered" in events, "recovery")
            with pytest.raises(rabbitry.AlreadySettled):
                old.ack()
            channel.publish(b"after", routing_key=queue)
            while deliveries.next(timeout=90).body != b"after":
                pass


_SCRIPT = """
import sys, rabbitry
connection = rabbitry.connect_blocking(sys.argv[1])
channel = connection.channel()
queue = channel.declare_queue(exclusive=True).name
with channel.consume(queue) as deliveries:
    print("waiting", flush=True)
    deliveries.next()
"""


def test_ctrl_c_ends_a_wait_and_nothing_hangs(embedded_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, embedded_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waiting\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=WITHIN)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in errors
    assert process.returncode != 0


def test_a_forked_child_gets_an_error(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True).name
        child = os.fork()
        if child == 0:
            try:
                channel.publish(b"from the child", routing_key=queue)
            except rabbitry.UsedAfterFork as error:
                os._exit(7 if "open a connection after the fork" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        channel.publish(b"from the parent", routing_key=queue)
        assert channel.declare_queue(queue, passive=True).message_count == 1


def test_a_forked_child_can_leave_the_parents_blocks(embedded_url: str) -> None:
    parent = os.getpid()
    child = 0
    try:
        with rabbitry.connect_blocking(embedded_url) as connection, connection.channel() as channel:
            queue = channel.declare_queue(exclusive=True).name
            with channel.consume(queue):
                child = os.fork()
                if child == 0:
                    sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            channel.publish(b"from the parent", routing_key=queue)
    except BaseException as error:
        if os.getpid() == parent:
            raise
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 9)


@contextlib.contextmanager
def _running(work: Callable[[], None], is_over: threading.Event) -> Iterator[None]:
    """Run `work` in a thread within the block. It ends by `is_over`, set when the block ends or takes too long."""
    thread, watch = threading.Thread(target=work), threading.Timer(WITHIN, is_over.set)
    thread.start()
    watch.start()
    try:
        yield
    finally:
        is_over.set()
        watch.cancel()
        thread.join()
        watch.join()


def test_waiting_for_confirms_ends_while_other_threads_keep_sending(embedded_url: str) -> None:
    has_begun, is_over = threading.Event(), threading.Event()
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True, arguments={"x-max-length": 10}).name

        def send() -> None:
            while not is_over.is_set():
                channel.send(b"x", routing_key=queue)
                has_begun.set()

        with _running(send, is_over):
            assert has_begun.wait(WITHIN)
            future = channel.send(b"mine", routing_key=queue)
            channel.wait_for_confirms()
            was_over = is_over.is_set()
        assert future.done()
        assert not was_over, "it waited until nobody sent any more"


def test_sending_threads_get_an_error_when_the_connection_closes(embedded_url: str) -> None:
    has_begun, is_over = threading.Event(), threading.Event()
    errors: list[str] = []
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True, arguments={"x-max-length": 10}).name

        def send() -> None:
            try:
                while not is_over.is_set():
                    channel.send(b"x", routing_key=queue)
                    has_begun.set()
            except rabbitry.ConnectionClosed as error:
                errors.append(str(error))

        with _running(send, is_over):
            assert has_begun.wait(WITHIN)
            connection.close()
            eventually_blocking(lambda: errors, "the error of the thread that sends")
    assert errors == ["the connection was closed by this program"]
    for _ in range(10_001):  # more than may wait to be sent
        with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
            channel.send(b"x", routing_key=queue)


def test_a_consuming_thread_ends_with_connection_closed(embedded_url: str) -> None:
    has_begun = threading.Event()
    with rabbitry.connect_blocking(embedded_url) as connection:
        queue = connection.channel().declare_queue(exclusive=True).name

        def consume() -> None:
            with connection.channel() as channel, channel.consume(queue) as deliveries:
                has_begun.set()
                deliveries.next(timeout=WITHIN)

        with ThreadPoolExecutor(1) as threads:
            consuming = threads.submit(consume)
            assert has_begun.wait(WITHIN)
            connection.close()
            with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
                consuming.result(WITHIN)


def test_the_end_of_a_block_does_not_replace_the_error_that_ended_it() -> None:
    io = IOThread()
    waiting = threading.Semaphore(0)

    async def leave() -> None:
        waiting.release()
        await asyncio.Event().wait()

    def run() -> None:
        try:
            raise KeyError("its own")
        finally:
            io.run_at_end(leave())

    with ThreadPoolExecutor(2) as threads:
        ending = threads.submit(run)
        calling = threads.submit(io.run, leave())
        assert waiting.acquire(timeout=WITHIN)
        assert waiting.acquire(timeout=WITHIN)
        io.stop()
        with pytest.raises(KeyError, match="its own"):
            ending.result(WITHIN)
        with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
            calling.result(WITHIN)
    io.run_at_end(leave())  # nothing is left to end


def test_calls_from_many_threads_wake_the_loop_once_for_a_batch() -> None:
    io = IOThread()
    done = threading.Event()
    order: list[int] = []
    for number in range(1000):
        io.post(lambda number=number: order.append(number))  # type: ignore[misc] # a default binds the number
    io.post(done.set)
    assert done.wait(90)
    assert order == list(range(1000))
    io.stop()
    io.stop()
    with pytest.raises(rabbitry.ConnectionClosed):
        io.post(done.set)
