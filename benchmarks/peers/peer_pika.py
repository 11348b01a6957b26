"""pika: BlockingConnection one by one and for consuming, SelectConnection for pipelined confirms."""

import time
import uuid
from typing import Any

import pika

from benchmarks.peers._common import WINDOW, Task


def _properties() -> pika.BasicProperties:
    return pika.BasicProperties(delivery_mode=2, message_id=uuid.uuid4().hex)


def publish_one_by_one(task: Task) -> None:
    """Publish each message after the confirm of the previous one, as BlockingConnection does."""
    with pika.BlockingConnection(pika.URLParameters(task.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        task.begin()
        for _ in range(task.count):
            channel.basic_publish("", task.queue, task.body, _properties(), mandatory=True)
        task.end()


class _Pipelined:
    """A SelectConnection that keeps a window of unconfirmed publishes."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._sent = 0
        self._pending: set[int] = set()
        self._failures: list[object] = []
        self._channel: Any = None
        self._connection = pika.SelectConnection(
            pika.URLParameters(task.url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=self._closed,
        )

    def run(self) -> None:
        self._connection.ioloop.start()
        if self._failures:
            raise RuntimeError(f"pipelined publishing failed: {self._failures}")

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_return_callback(self._failed)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._start())

    def _start(self) -> None:
        self._task.begin()
        self._fill()

    def _fill(self) -> None:
        while len(self._pending) < WINDOW and self._sent < self._task.count:
            self._sent += 1
            self._pending.add(self._sent)
            self._channel.basic_publish("", self._task.queue, self._task.body, _properties(), mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        if not isinstance(frame.method, pika.spec.Basic.Ack):
            self._failures.append(frame.method)
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            self._pending = {pending for pending in self._pending if pending > tag}
        else:
            self._pending.discard(tag)
        if self._sent < self._task.count:
            # Refilling at half full lets the writes of many publishes go out together.
            if len(self._pending) <= WINDOW // 2:
                self._fill()
        elif not self._pending:
            self._task.end()
            self._connection.close()

    def _failed(self, *what: object) -> None:
        self._failures.append(what)
        self._connection.ioloop.stop()

    def _closed(self, connection: Any, reason: Any) -> None:
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            self._failures.append(reason)
        connection.ioloop.stop()


def publish(task: Task) -> None:
    """Publish with a window of outstanding confirms."""
    _Pipelined(task).run()


def consume(task: Task) -> None:
    """Consume with prefetch and ack each message."""
    with pika.BlockingConnection(pika.URLParameters(task.url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=task.prefetch)
        taken = 0

        def take(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            nonlocal taken
            channel.basic_ack(method.delivery_tag)
            taken += 1
            if taken == task.count:
                task.end()
                channel.stop_consuming()

        task.begin()
        channel.basic_consume(task.queue, take)
        channel.start_consuming()


def ping(task: Task, *, confirms: bool = False) -> None:
    """Send a message to itself, one at a time; with `confirms` it waits for each confirm, too."""
    with pika.BlockingConnection(pika.URLParameters(task.url)) as connection:
        channel = connection.channel()
        if confirms:
            channel.confirm_delivery()
        deliveries = channel.consume(task.queue)
        task.begin()
        for _ in range(task.count):
            began = time.perf_counter()
            channel.basic_publish("", task.queue, task.body, _properties(), mandatory=True)
            method, _, _ = next(deliveries)
            task.took.append(time.perf_counter() - began)
            channel.basic_ack(method.delivery_tag)
        task.end()


if __name__ == "__main__":
    Task(
        {
            "publish": publish,
            "publish-one-by-one": publish_one_by_one,
            "consume": consume,
            "ping": ping,
            "ping-confirmed": lambda task: ping(task, confirms=True),
        }
    ).run()
