"""The broker's totals in the history: messages that wait, and rates, each time its management API tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rabbitry.web.feed.topics import Value

BROKER: Final = "broker"
"""The app of these series."""


@contextlib.contextmanager
def recorded(topic: Value, record: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """Record what comes to the topic `broker` while the block runs; its source then asks even if no page wants it."""

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
