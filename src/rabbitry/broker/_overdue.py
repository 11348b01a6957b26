"""Closing channels whose oldest delivery was not acknowledged in time (RabbitMQ's docs/consumers, `consumer_timeout`).

A delivery has no time of its own, which would cost CPU for each. Instead, each channel's next delivery tag is noted now
and then: a delivery with a smaller tag was sent before that note.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from rabbitry.broker._channel import Channel
from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._errors import ChannelRefusal, precondition_failed
from rabbitry.broker._queues import Queue
from rabbitry.broker._shares import Shares
from rabbitry.broker.compat import Release

_LONGEST: Final = 60.0
"""Most seconds between two looks at all channels; RabbitMQ looks as often."""
_SHORTEST: Final = 0.01
"""Least seconds between two looks: with a timeout of 0 they would take all of the loop's time."""
_PARTS: Final = 10
"""Looks within the usual timeout, if that is shorter than ten minutes."""
_MOST_NOTES: Final = 1000
"""Notes of one channel. A delivery without a limit, ahead of all others, would otherwise let them grow for ever."""


class Connection(Protocol):
    """The part of a connection that is used here."""

    channels: dict[int, Channel]

    @property
    def is_held(self) -> bool:
        """Whether its frames wait for an operation; a channel can't be closed meanwhile."""

    def refuse(self, number: int, error: ChannelRefusal, ids: tuple[int, int]) -> None:
        """Close a channel with an error."""


class Overdue:
    """Looks for channels with overdue deliveries.

    Args:
        connections: The connections that are open.
        dispatcher: Delivers the messages that closed channels return.
        shares: Schedules the looks.
        release: The behaviour of the broker's release of RabbitMQ.
        usual: Seconds for an acknowledgement, unless a queue has a timeout of its own; None for no limit.
    """

    def __init__(
        self,
        connections: Collection[Connection],
        dispatcher: Dispatcher,
        shares: Shares,
        release: Release,
        usual: float | None,
    ) -> None:
        self._connections = connections
        self._dispatcher = dispatcher
        self._shares = shares
        self._has_own = release.has_consumer_timeouts
        self._usual = None if usual is None or usual == math.inf else int(usual * 1000)
        self._pause = _LONGEST if usual is None else max(_SHORTEST, min(_LONGEST, usual / _PARTS))
        self._notes: WeakKeyDictionary[Channel, deque[tuple[int, float]]] = WeakKeyDictionary()
        """Channel → its next delivery tags, each with the time at which it was noted; the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now and then until `stop`."""
        if self._usual is not None or self._has_own:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._on_timer)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        if self._shares.work(self.looking(), self._go_on, lambda go_on: True):
            self._go_on()

    def _go_on(self) -> None:
        self._dispatcher.dispatch()
        if self._timer is not None:
            self.start()

    def looking(self, now: float | None = None) -> Iterator[None]:
        """Close the channels with an overdue delivery, in steps.

        now: seconds on the monotonic clock; None for the time of each step.
        """
        for connection in list(self._connections):
            for number, channel in list(connection.channels.items()):
                yield
                if connection.channels.get(number) is not channel:
                    continue  # closed since
                timeout = self._exceeded(channel, time.monotonic() if now is None else now)
                if timeout is not None and not connection.is_held:
                    text = (
                        f"delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout} ms. "
                        "This timeout value can be configured, see consumers doc guide to learn more"
                    )
                    connection.refuse(number, precondition_failed(text), (0, 0))

    def _exceeded(self, channel: Channel, now: float) -> int | None:
        """Return the timeout in milliseconds that a channel's oldest delivery exceeds; None if it is in time."""
        oldest = next(iter(channel.unsettled), None)
        if oldest is None:
            self._notes.pop(channel, None)
            return None
        notes = self._notes.setdefault(channel, deque())
        while notes and notes[0][0] <= oldest:
            notes.popleft()
        if not notes or (notes[-1][0] != channel.next_tag and len(notes) < _MOST_NOTES):
            notes.append((channel.next_tag, now))
        timeout = self._timeout_of(channel.unsettled[oldest][0])
        return timeout if timeout is not None and (now - notes[0][1]) * 1000 >= timeout else None

    def _timeout_of(self, queue: Queue) -> int | None:
        """Return a queue's timeout in milliseconds; None for no limit."""
        if not self._has_own:
            return self._usual
        given = [queue.arguments.get("x-consumer-timeout"), queue.settings.get("consumer-timeout")]
        if given == [None, None]:
            return self._usual
        numbers = [one for one in given if isinstance(one, int | float) and not isinstance(one, bool)]
        shortest = min(numbers, default=None)
        return shortest if isinstance(shortest, int) else None  # RabbitMQ ignores a timeout that is no integer
