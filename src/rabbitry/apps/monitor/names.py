"""The names and flags that contracts `pi_utilization` and `system_info` fix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleExchange:
    """An exchange that samples go to. `persistent` is about the messages (delivery mode 2)."""

    name: str
    type: str
    durable: bool
    persistent: bool


UTILIZATION = SampleExchange("pi_utilization", "direct", durable=False, persistent=False)
SYSTEM_INFO = SampleExchange("system_info", "fanout", durable=True, persistent=True)
CONSUMER_QUEUE = "Consumer"
"""The exclusive queue of the page that shows `system_info`."""
