"""Dramatiq's program: confirmed publishing, its own 8 threads in one process, prefetch 200 by the environment."""

import os
import sys
from typing import Any

import dramatiq
import msgspec
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.cli import main, make_argument_parser

from benchmarks.flow_peers import IN, OUT, URL, Item

os.environ.setdefault("dramatiq_queue_prefetch", "200")
dramatiq.set_broker(RabbitmqBroker(url=URL, confirm_delivery=True, middleware=[]))


@dramatiq.actor(queue_name=OUT)
def sink(item: dict[str, Any]) -> None:
    """Take the result; never run here."""


@dramatiq.actor(queue_name=IN)
def handle(item: dict[str, Any]) -> None:
    """Increment the number."""
    value = msgspec.convert(item, Item)
    sink.send(msgspec.to_builtins(Item(value.n + 1, value.text)))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        for number in range(int(sys.argv[2])):
            handle.send(msgspec.to_builtins(Item(number)))
    else:
        arguments = ["benchmarks.flow_peers.peer_dramatiq", "-p", "1", "-t", "8", "--queues", IN]
        arguments_of = make_argument_parser()  # type: ignore[no-untyped-call] # no types there
        sys.exit(main(arguments_of.parse_args(arguments)))  # type: ignore[no-untyped-call] # no types there
