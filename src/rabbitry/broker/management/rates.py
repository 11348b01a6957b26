"""Rates: counters looked at every few seconds, so that counting costs a message next to nothing."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker
    from rabbitry.broker.queues.queue import Queue

PERIOD: Final = 5.0
"""Seconds between two looks, as RabbitMQ's collect_statistics_interval."""
Counters = Mapping[str, int]
GAUGES: Final = ("messages", "messages_ready", "messages_unacknowledged")
"""Gauges, which also go down; the others are counters."""


class Rates:
    """Remembers each object's counters of the last two looks, and how much all queues' counters grew between them.

    The sum over the queues says less: where one of them was deleted it falls.
    """

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._grown: Counters = {}
        self._now: dict[object, Counters] = {}
        self._before: dict[object, Counters] = {}
        self._now_at = self._before_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and from now on."""
        self._look()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._before, self._before_at = self._now, self._now_at
        self._now_at = time.monotonic()
        self._now = {}
        grown: dict[str, int] = {}
        for queue in all_queues(self._broker):
            counters = self._now[queue] = queue_counters(queue)
            before = self._before.get(queue, {})
            for name, value in counters.items():
                grown[name] = grown.get(name, 0) + value - before.get(name, 0)
        for name in GAUGES:
            # The messages of a deleted queue are gone: these go down as they do on RabbitMQ.
            gone = (counters for of, counters in self._before.items() if of not in self._now)
            grown[name] = grown.get(name, 0) - sum(counters.get(name, 0) for counters in gone)
        # Before the first look is no period: what is there then has not grown in it.
        self._grown = grown if self._timer is not None else {}
        for connection in self._broker.connections:
            self._now[connection] = {
                "recv_oct": connection.driver.bytes_received,
                "send_oct": connection.driver.bytes_sent,
            }
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)

    def with_rates(self, of: object, counters: Counters) -> dict[str, object]:
        """Return counters, and beside each its rate a second between the last two looks."""
        seconds = self._now_at - self._before_at
        result: dict[str, object] = {}
        for name, value in counters.items():
            result[name] = value
            rate = self._growth(of, name) / seconds if seconds > 0 else 0.0
            result[f"{name}_details"] = {"rate": round(rate, 2)}
        return result

    def _growth(self, of: object, name: str) -> int:
        if of is None:
            return self._grown.get(name, 0)
        now, before = self._now.get(of, {}), self._before.get(of, {})
        return now[name] - before[name] if name in now and name in before else 0


def all_queues(broker: "Broker") -> Iterable["Queue"]:
    """Go over the queues of all virtual hosts."""
    for vhost in broker.vhosts.values():
        yield from vhost.queues.values()


def queue_counters(queue: "Queue") -> dict[str, int]:
    """Return what is counted of a queue: message_stats, and how many messages there are."""
    return {
        "publish": queue.published,
        "deliver_get": queue.delivered,
        "deliver": queue.delivered - queue.got,
        "get": queue.got,
        "ack": queue.acknowledged,
        "redeliver": queue.redelivered,
        "messages": queue.ready + queue.unsettled,
        "messages_ready": queue.ready,
        "messages_unacknowledged": queue.unsettled,
    }
