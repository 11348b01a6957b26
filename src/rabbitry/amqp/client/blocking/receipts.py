"""The receipt of a sent message, for other threads than the I/O thread."""

from __future__ import annotations

import concurrent.futures

from rabbitry.amqp.client._receipts import Receipt
from rabbitry.exceptions import ConnectionClosed, UsageError
from rabbitry.runtime.io_thread import IOThread

__all__ = ["BlockingReceipt", "pass_on"]


class BlockingReceipt(concurrent.futures.Future[None]):
    """The receipt of a sent message: a future that is done once the broker has confirmed the message.

    `result(timeout)` waits for the confirm and raises the errors of `BlockingChannel.publish`. It need not be called:
    the failures that a program has not seen are raised by `wait_for_confirms` or at the end of the channel's or the
    connection's block, otherwise logged.

    Attributes:
        failure: Why the message was not confirmed; None if it was, or if that is not known yet. Reading it does not
            count as having seen the failure.
    """

    failure: Exception | None = None
    _was_asked = False

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self._message_id = message_id

    @property
    def message_id(self) -> str:
        """The message's id: the one in its properties, or the one that the client made."""
        return self._message_id

    def _fail(self, error: Exception) -> None:
        """End it with an error."""
        self.failure = error
        self.set_exception(error)

    @property
    def _is_unseen(self) -> bool:
        """Whether it has failed and nobody has asked for its result or exception since."""
        return self.failure is not None and not self._was_asked

    def result(self, timeout: float | None = None) -> None:
        """Wait for the confirm; raise why the message was not confirmed, or TimeoutError past `timeout` seconds."""
        try:
            super().result(timeout)
        finally:
            self._note_look()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome and return why the message was not confirmed; None if it was.

        Raises TimeoutError past `timeout` seconds.
        """
        try:
            return super().exception(timeout)
        finally:
            self._note_look()

    def _note_look(self) -> None:
        self._was_asked = self.done()


class _PassedOn(BlockingReceipt):
    """The blocking receipt of a message that was sent in the I/O thread. Made in the I/O thread."""

    def __init__(self, receipt: Receipt, io: IOThread) -> None:
        super().__init__(receipt.message_id)
        self._receipt = receipt
        self._io = io
        self.set_running_or_notify_cancel()  # from here on it can't be cancelled, and is free to be set
        receipt.add_done_callback(self._on_done)

    def _on_done(self, _receipt: object) -> None:
        if self._receipt.failure is not None:
            self._fail(self._receipt.failure)
        else:
            self.set_result(None)

    def _note_look(self) -> None:
        """Count a look at a failure in this thread as a look at the receipt."""
        super()._note_look()
        if self.failure is not None and self._io.is_running:
            try:
                self._io.post(self._look)
            except ConnectionClosed:
                pass  # the connection was closed meanwhile
            except UsageError:
                self._look()  # in the I/O thread itself, which calls the callbacks of `add_done_callback`

    def _look(self) -> None:
        self._receipt.exception()


def pass_on(receipt: Receipt, io: IOThread) -> BlockingReceipt:
    """Return a receipt for other threads that has the outcome of one of the I/O thread. Called in the I/O thread."""
    return _PassedOn(receipt, io)
