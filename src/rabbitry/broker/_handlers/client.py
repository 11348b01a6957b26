"""The part of a client's connection that handlers use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from rabbitry.amqp.protocol.methods import Method
from rabbitry.broker._permissions import Permissions
from rabbitry.broker._queues import Owner, Queue


class Client(Owner, Protocol):
    """The connection that sent the method. It owns the exclusive queues that the client declares."""

    permissions: Permissions
    """The permissions of the client's user in its virtual host."""

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel is closed."""

    def work(self, steps: Iterator[None], then: Callable[[], None] = ...) -> None:
        """Run the steps of a long operation, alternating with other clients, then call `then`. Hold later frames."""

    def change(self, number: int, steps: Iterator[None], answer: Callable[[], Method | None]) -> None:
        """Run the steps of a change as `work` does, and answer on channel `number` when all of it is durable."""

    def wait_for_commit(self, number: int, answer: Method | None) -> None:
        """Hold the client's later frames until its change is durable, then answer."""

    def carry_out_when_loaded(self, number: int, method: Method, queue: Queue) -> None:
        """Hold a method and the client's later frames until the store has read a queue."""

    def carry_out_again(self, number: int, method: Method) -> None:
        """Hold a method and the client's later frames until other clients have had their turn."""
