"""Resending unconfirmed messages after a lost connection, and finding a message that ends every connection.

A message may crash the broker, or make it close the connection (541); resent, it would end each new connection. After
one loss all unconfirmed messages are resent at once. Messages that were unconfirmed at several losses in a row are sent
one at a time: if the connection is lost again, the message in flight has ended it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.client._window import PublishWindow, Unconfirmed
from rabbitry.exceptions import ConnectionClosed

PROOF: Final = 1.0
"""Seconds that a connection must last before a suspect is sent over it, so that an unstable network is not blamed on
the message. After a 541 there is no such wait."""
_INTERNAL_ERROR: Final = 541
_LOSSES: Final = 3
"""Losses in a row after which a message is a suspect; two if the broker sends 541."""

_logger = logging.getLogger(__name__)


class Resending:
    """The messages that one connection resends, one by one if one is suspected. Owned by the connection."""

    def __init__(self, name: str) -> None:
        """name: the connection's name in the log."""
        self.is_careful: bool = False
        """Whether the next link holds back the messages that were in flight, for `begin`."""
        self._name = name
        self._wants_proof = False
        self._has_proof = False
        self._task: asyncio.Task[None] | None = None

    def on_lost(self, error: ConnectionClosed, windows: Iterable[PublishWindow]) -> None:
        """Record the messages in flight over the lost link; one that ended two links fails with `error`."""
        self.stop()
        flying = [(window, entry) for window in windows for entry in window.flying]
        for _, entry in flying:
            entry.losses += 1
        is_internal = error.reply_code == _INTERNAL_ERROR
        least = 2 if is_internal else _LOSSES
        suspects = [(window, entry) for window, entry in flying if entry.losses >= least]
        if len(suspects) == 1 and (is_internal or self._has_proof):
            self.is_careful = False
            self._blame(*suspects[0], error)
        elif flying:
            self.is_careful = bool(suspects)
            self._wants_proof = not is_internal
        # With nothing in flight, the link was lost before a suspect was sent: it remains a suspect.

    def _blame(self, window: PublishWindow, entry: Unconfirmed, error: ConnectionClosed) -> None:
        target = f"exchange {entry.exchange!r}, routing key {entry.routing_key!r}, {len(entry.body)} bytes"
        text = f"{error.reply_text} (the connection was lost each time this message was sent: {target})"
        _logger.error("%s: gave up on a message: %s", self._name, text)
        blamed = type(error)(error.reply_code, text, error.class_id, error.method_id)
        blamed.__cause__ = error
        window.give_up(entry, blamed)

    def begin(self, windows: Iterable[PublishWindow]) -> None:
        """Send the held-back messages, one by one, over a restored link. Does nothing if there are none."""
        self._has_proof = False
        if self.is_careful:
            self._task = asyncio.create_task(self._send(list(windows)), name="resending")

    async def _send(self, windows: list[PublishWindow]) -> None:
        if self._wants_proof:
            await asyncio.sleep(PROOF)
            self._has_proof = True
        for window in windows:
            while (entry := window.send_held()) is not None:
                await asyncio.wait((entry.future,))
        self.is_careful = False
        for window in windows:
            window.wake()

    def stop(self) -> None:
        """Send nothing more over this link."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
