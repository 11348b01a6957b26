"""Celery's program: late acks, confirmed publishing, prefetch 200, the solo pool (the fastest for small tasks)."""

import sys
from typing import Any

import msgspec
from celery import Celery  # type: ignore[import-untyped] # Celery has no types

from benchmarks.flow_peers import IN, OUT, URL, Item

app = Celery("bench", broker=URL)
app.conf.update(
    task_default_queue=IN,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=200,
    worker_send_task_events=False,
    broker_transport_options={"confirm_publish": True},
)


@app.task(name="sink")  # type: ignore[untyped-decorator] # Celery has no types
def sink(item: dict[str, Any]) -> None:
    """Take the result; never run here."""


@app.task(name="handle")  # type: ignore[untyped-decorator] # Celery has no types
def handle(item: dict[str, Any]) -> None:
    """Increment the number."""
    value = msgspec.convert(item, Item)
    sink.apply_async((msgspec.to_builtins(Item(value.n + 1, value.text)),), queue=OUT)


def fill(count: int) -> None:
    """Publish items."""
    for number in range(count):
        handle.apply_async((msgspec.to_builtins(Item(number)),))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]))
    else:
        app.worker_main(["worker", "--pool", "solo", "--without-gossip", "--without-mingle", "-Q", IN, "-l", "error"])
