"""The queue of messages from the threads of a script to the I/O thread."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from rabbitry.amqp.client._receipts import Failures, Receipt, raise_all
from rabbitry.amqp.client._window import PublishWindow
from rabbitry.amqp.client.blocking.receipts import BlockingReceipt
from rabbitry.exceptions import ConnectionClosed, PublishTimeout
from rabbitry.runtime.io_thread import IOThread

_UNSENT_MESSAGES: Final = 10_000
_UNSENT_BYTES: Final = 64 << 20


class _Room:
    """The bound on messages that wait to be sent. For any thread."""

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait for room for a message of `size` bytes; one above the bound waits until the queue is empty."""
        with self._changed:
            while self._messages >= _UNSENT_MESSAGES or (self._messages and self._bytes + size > _UNSENT_BYTES):
                self._changed.wait()
            self._messages += 1
            self._bytes += size

    @property
    def is_empty(self) -> bool:
        """Whether no message waits to be sent."""
        return not self._messages

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        with self._changed:
            self._messages -= 1
            self._bytes -= size
            self._changed.notify()


class _Unsent(NamedTuple):
    """A message that waits for the I/O thread."""

    send: Callable[[], Coroutine[Any, Any, Receipt]]
    receipt: BlockingReceipt
    size: int


class Outbox:
    """The messages of one channel that wait to be sent, in order."""

    def __init__(self, io: IOThread, window: PublishWindow, failures: Failures) -> None:
        """window: the channel's. failures: those of the connection, which this outbox adds to."""
        self._io = io
        self._window = window
        self._failures = failures
        self._unsent: deque[_Unsent | asyncio.Future[None]] = deque()
        """Messages to send, and among them the futures of callers that wait until everything before is sent."""
        self._room = _Room()
        self._sending: asyncio.Task[None] | None = None

    def put(self, send: Callable[[], Coroutine[Any, Any, Receipt]], message_id: str, size: int) -> BlockingReceipt:
        """Queue a message of `size` bytes for `send` to send in the I/O thread; wait only for room. For any thread."""
        self._room.take(size)
        receipt = BlockingReceipt(message_id)
        self._unsent.append(_Unsent(send, receipt, size))
        self._io.post(self._go_on)
        return receipt

    @property
    def is_empty(self) -> bool:
        """Whether every queued message is sent."""
        return self._room.is_empty

    async def sent(self) -> None:
        """Wait until everything queued before is sent; other threads may keep sending."""
        place: asyncio.Future[None] = self._io.loop.create_future()
        self._unsent.append(place)
        self._go_on()
        await place

    async def settled(self, timeout: float | None = None) -> None:
        """Wait until everything queued before is sent and has been confirmed or has failed, and failures are recorded.

        Raises PublishTimeout after `timeout` seconds.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self.sent()
        except TimeoutError as error:
            raise PublishTimeout(f"not all messages were sent within {timeout} s: the broker takes no more") from error
        left = None if timeout is None else max(timeout - (time.monotonic() - started), 0)
        await self._window.wait_idle(left)
        # asyncio calls `_pass_on` one loop iteration after the outcome. Without waiting one here, an outcome of this
        # iteration would be missing from the failures raised next.
        await asyncio.sleep(0)

    async def wait_for_confirms(self, timeout: float | None) -> None:
        """Wait as `settled` does, and raise the failures since the last call as one group."""
        await self.settled(timeout)
        raise_all(self._failures.take(self))

    def raise_unseen(self) -> None:
        """Raise the failures that nobody has retrieved."""
        raise_all(self._failures.take_unseen(self))

    def abandon(self) -> None:
        """End the futures of messages that were never sent, once the I/O thread has ended."""
        while self._unsent:
            unsent = self._unsent.popleft()
            if isinstance(unsent, _Unsent):
                unsent.receipt.cancel()
                self._room.give_back(unsent.size)

    def _go_on(self) -> None:
        if self._unsent and (self._sending is None or self._sending.done()):
            self._sending = self._io.loop.create_task(self._send_all(), name="sending")

    async def _send_all(self) -> None:
        while self._unsent:
            unsent = self._unsent.popleft()
            if not isinstance(unsent, _Unsent):
                if not unsent.done():
                    unsent.set_result(None)
                continue
            send, receipt, size = unsent
            is_failed = False
            try:
                # From here on its owner can't cancel it any more, so the outcome can be set.
                if receipt.set_running_or_notify_cancel():
                    sent = await send()
                    sent.add_done_callback(functools.partial(self._pass_on, receipt))
            except asyncio.CancelledError:
                self._fail(receipt, ConnectionClosed(0, "not sent: the connection was closed by this program"))
                raise
            except Exception as error:  # noqa: BLE001 - the caller gets it, and other messages wait
                self._fail(receipt, error)
                is_failed = True
            finally:
                self._room.give_back(size)
            if is_failed:
                # Nothing was awaited: a thread that keeps sending over a closed channel would occupy the loop.
                await asyncio.sleep(0)

    def _pass_on(self, receipt: BlockingReceipt, sent: asyncio.Future[None]) -> None:
        """Pass the outcome of a publish to the other thread."""
        error = sent.exception()
        if isinstance(error, Exception):
            self._fail(receipt, error)
        else:
            receipt.set_result(None)

    def _fail(self, receipt: BlockingReceipt, error: Exception) -> None:
        receipt._fail(error)
        self._failures.add(self, receipt)
