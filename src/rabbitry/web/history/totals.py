"""The broker's totals in the history: waiting messages and rates, each time that its management API is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rabbitry.web.feed.topics import Value

BROKER: Final = "broker"
"""The app of these series."""


@contextlib.contextmanager
def recorded(topic: Value, record: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """Record each state of the topic `broker` while the block runs, also if no page subscribes to it.

    Args:
        topic: The topic.
        record: Called with name → number.
    """

    def note() -> None:
        record(totals(topic.value))

    subscription = topic.subscribe({}, note)
    try:
        yield
    finally:
        topic.unsubscribe(subscription)


def totals(broker: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the numbers of the topic's value that are recorded: messages, and messages a second."""
    messages, rates = broker.get("messages", {}), broker.get("rates", {})
    numbers = {"ready": messages, "unacked": messages, "publish": rates, "deliver_get": rates, "ack": rates}
    return {name: found[name] for name, found in numbers.items() if name in found}
