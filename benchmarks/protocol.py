"""The cost of a message in the protocol core: nanoseconds in the hot path, the plain path and pamqp.

Reading and writing a 200-byte persistent message with a message id, in one process, without sockets. The plain path is
the core with its hot path disabled. pamqp also decodes names and properties, which Rabbitry's core leaves to its
callers; `parsed` adds that to the hot path for a fair comparison.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from tests.support.deliveries import open_pair

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.events import DELIVER, PUBLISH, Event
from rabbitry.amqp.protocol.methods import BasicDeliver, BasicPublish, Method
from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import encode_short

BODY = b"x" * 200
PROPERTIES = Properties(delivery_mode=2, message_id="0123456789abcdef0123456789abcdef")
MESSAGES = 400
"""Messages in one chunk: 131 KB, about as much as one read from a socket."""
ROUNDS = 60
LIMIT = 131072 - 8
_EXCHANGE, _KEY = "exchange", "routing.key"
_DELIVER = encode_method(BasicDeliver("", 1, False, "", ""))[:4]


class _NeverReady(set[int]):
    """Ready channels of a core that must use the plain path: always empty."""

    def __contains__(self, item: object) -> bool:
        return False


def _core(role: Role, *, plain: bool) -> Connection:
    core = open_pair()[0 if role is Role.CLIENT else 1]
    if plain:
        core._ready = _NeverReady()
    return core


def _best(work: Callable[[], None]) -> float:
    """Return the nanoseconds per message in the best of ROUNDS rounds: the one least disturbed by other programs."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
    return best / MESSAGES


def _received(core: Connection, chunk: bytes) -> Iterator[list[Event]]:
    """Yield the events of each turn like a driver, which reads very many in several turns."""
    while events := core.receive(chunk):
        yield events
        chunk = b""


def _scan(core: Connection, chunk: bytes) -> None:
    if sum(len(events) for events in _received(core, chunk)) != MESSAGES:
        raise RuntimeError("not every message was read")


def _scan_and_parse(core: Connection, chunk: bytes) -> None:
    for event in itertools.chain.from_iterable(_received(core, chunk)):
        if event[0] == PUBLISH:
            hot.parse_publish(event[2])
            decode_header(event[3])
        elif event[0] == DELIVER:
            decode_method(_DELIVER + event[2])
            decode_header(event[3])


def _content(core: Connection, method: Method, header: bytes) -> bytes:
    return core.send_method(1, method) + hot.encode_content(1, header, BODY, core.frame_limit)


def _frames(chunk: bytes) -> list[bytes]:
    found, offset = [], 0
    while offset < len(chunk):
        size = 8 + int.from_bytes(chunk[offset + 3 : offset + 7], "big")
        found.append(chunk[offset : offset + size])
        offset += size
    return found


def _unmarshal(frames: list[bytes]) -> None:
    for frame in frames:
        pamqp.frame.unmarshal(frame)


def _encode_hot() -> None:
    exchange, key = encode_short(_EXCHANGE), encode_short(_KEY)
    for _ in range(MESSAGES):
        header = encode_header(PROPERTIES, len(BODY))
        method = hot.encode_method_frame(1, hot.publish_payload(exchange, key, mandatory=True))
        b"".join((method, hot.encode_content(1, header, BODY, LIMIT)))


def _encode_plain(core: Connection) -> None:
    for _ in range(MESSAGES):
        _content(core, BasicPublish(_EXCHANGE, _KEY, True), encode_header(PROPERTIES, len(BODY)))


def _encode_pamqp() -> None:
    for _ in range(MESSAGES):
        properties = Basic.Properties(delivery_mode=2, message_id=PROPERTIES.message_id)
        b"".join(
            (
                pamqp.frame.marshal(Basic.Publish(exchange=_EXCHANGE, routing_key=_KEY, mandatory=True), 1),
                pamqp.frame.marshal(ContentHeader(body_size=len(BODY), properties=properties), 1),
                pamqp.frame.marshal(ContentBody(BODY), 1),
            )
        )


def main() -> None:
    """Print a JSON line for each operation: ns_hot, ns_plain, ns_pamqp for a message."""
    header = encode_header(PROPERTIES, len(BODY))
    client, broker = open_pair()
    chunks = {
        "publish": (Role.BROKER, _content(client, BasicPublish(_EXCHANGE, _KEY, True), header) * MESSAGES),
        "deliver": (
            Role.CLIENT,
            _content(broker, BasicDeliver("ctag1", 7, False, _EXCHANGE, _KEY), header) * MESSAGES,
        ),
    }
    for name, (role, chunk) in chunks.items():
        fast, plain, frames = _core(role, plain=False), _core(role, plain=True), _frames(chunk)
        found = {
            "ns_hot": _best(partial(_scan, fast, chunk)),
            "ns_hot_parsed": _best(partial(_scan_and_parse, fast, chunk)),
            "ns_plain": _best(partial(_scan, plain, chunk)),
            "ns_pamqp": _best(partial(_unmarshal, frames)),
        }
        _print(f"scan {name}", found)
    _print(
        "encode publish",
        {
            "ns_hot": _best(_encode_hot),
            "ns_plain": _best(partial(_encode_plain, client)),
            "ns_pamqp": _best(_encode_pamqp),
        },
    )


def _print(operation: str, nanoseconds: dict[str, float]) -> None:
    rounded = {name: round(value) for name, value in nanoseconds.items()}
    print(json.dumps({"benchmark": "protocol", "operation": operation, "body": len(BODY), **rounded}), flush=True)


if __name__ == "__main__":
    main()
