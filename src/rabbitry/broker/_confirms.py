"""The confirms of a channel: acks and nacks for its publishes, in as few frames as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rabbitry.amqp.protocol import hot


class Confirms:
    """The confirms of one channel in confirm mode (RabbitMQ's docs/confirms).

    Args:
        number: The number of the channel.
        write: Sends bytes to the client.
    """

    __slots__ = ("__weakref__", "_confirmed", "_nacked", "_number", "_rejected", "_write", "published", "waits_for")

    def __init__(self, number: int, write: Callable[[bytes], None]) -> None:
        self.published = 0
        """Number of publishes, which is the delivery tag of the last one."""
        self.waits_for = 0
        """The store's batch with the last durable publish."""
        self._number = number
        self._write: Callable[[bytes], None] | None = write
        self._rejected: deque[int] = deque()
        self._confirmed = 0
        self._nacked = 0

    @property
    def acked(self) -> int:
        """Number of acked publishes."""
        return self._confirmed - self._nacked

    @property
    def unconfirmed(self) -> int:
        """Number of publishes that wait for their confirm."""
        return self.published - self._confirmed

    def reject(self) -> None:
        """Record that a queue refused the last publish, so that it is nacked."""
        self._rejected.append(self.published)

    def confirm(self, up_to: int) -> None:
        """Confirm publishes up to a delivery tag: everything before is settled, so one ack with `multiple` will do."""
        if self._write is None:
            return
        frames: list[bytes] = []
        while self._rejected and self._rejected[0] <= up_to:
            tag = self._rejected.popleft()
            frames += (self._ack_up_to(tag - 1), hot.encode_nack(self._number, tag))
            self._confirmed = tag
            self._nacked += 1
        self._write(b"".join((*frames, self._ack_up_to(up_to))))

    def refuse(self, up_to: int) -> None:
        """Nack all unconfirmed publishes up to a delivery tag: they could not be stored."""
        self._rejected = deque(sorted({*self._rejected, *range(self._confirmed + 1, up_to + 1)}))
        self.confirm(up_to)

    def stop(self) -> None:
        """Confirm nothing more: the channel is closed."""
        self._write = None

    def _ack_up_to(self, tag: int) -> bytes:
        if tag <= self._confirmed:
            return b""
        multiple = tag - self._confirmed > 1
        self._confirmed = tag
        return hot.encode_ack(self._number, tag, multiple=multiple)
