"""The same small program for each framework: take an item, decode it, raise its number, publish it confirmed, ack.

Each names the broker by BENCH_URL, takes from IN and publishes to OUT, and is told by `fill URL COUNT` to put items in.
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
