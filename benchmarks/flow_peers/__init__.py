"""The same small program for each framework: take an item, decode it, increment its number, publish it confirmed, ack.

Each finds the broker in BENCH_URL, takes from IN, publishes to OUT, and with the arguments `fill URL COUNT` adds items.
"""

import os
from typing import Final

import msgspec

IN: Final = "flow-in"
OUT: Final = "flow-out"
TEXT: Final = "x" * 150
URL: Final = os.environ.get("BENCH_URL", "amqp://guest:guest@127.0.0.1:5672/")


class Item(msgspec.Struct):
    """A message of the benchmark, some 200 bytes as JSON."""

    n: int
    text: str = TEXT
