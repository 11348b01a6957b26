"""py-amqplib 1.0.2 of 2011, which speaks AMQP 0-8: its recorded conversations replayed to both brokers."""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

import rabbitry
from rabbitry.amqp.protocol.tables import decode_table
from tests import data
from tests.support.replay import Frame, Replay, frames, up_to

HEADERS = (b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01")
START, CLOSE, CONSUME_OK, DELIVER = (10, 10), (20, 40), (60, 21), (60, 60)
STAMP = "2011-11-21T10:00:00"
PAGES = [f"crawler|a3f|{STAMP}|<html>{number}</html>" for number in ("one", "two")]
LINES = [f"crawler|a3f|{STAMP}|http://example.org/{number}|log" for number in (0, 1)]
PROCESSED = [f"processor|b7c|{page}|log" for page in PAGES]


def _named(payload: bytes) -> bytes:
    """Return a method's arguments without the consumer tag at their beginning."""
    return payload[5 + payload[4] :]


def _comparable(answers: list[Frame]) -> tuple[list[object], list[bytes]]:
    """Return a broker's answers, in order, without generated names; and the bodies that it delivered.

    Lines of two programs reach one queue in any order.
    """
    said: list[object] = []
    for frame in answers:
        if frame.method == START:
            said.append((START, frame.payload[4:6]))
        elif frame.method == CONSUME_OK:
            said.append((CONSUME_OK, _named(frame.payload)))
        elif frame.method == CLOSE:
            said.append((CLOSE, frame.payload[4:6], re.sub(rb"vhost '[^']*'", b"vhost", frame.payload[7:])))
        elif frame.kind == 1 and frame.method != DELIVER:
            said.append((frame.channel, frame.payload))
    return said, sorted(frame.payload for frame in answers if frame.kind == 3)


def _expected(name: str) -> tuple[list[object], list[bytes]]:
    return _comparable(frames(data.load(name, data.AMQPLIB).server))


def test_crawler_processor_and_page_get_rabbitmqs_answers(broker_url: str) -> None:
    page, processor, crawler = (data.load(name, data.AMQPLIB) for name in ("page", "processor", "crawler"))
    with contextlib.ExitStack() as stack:
        reading = stack.enter_context(Replay(broker_url, page))
        reading.wait_for(CONSUME_OK)
        processing = stack.enter_context(Replay(broker_url, processor))
        processing.wait_for(CONSUME_OK)
        crawling = stack.enter_context(Replay(broker_url, crawler))
    for name, replay in (("page", reading), ("processor", processing), ("crawler", crawling)):
        assert _comparable(replay.answers) == _expected(name), name
    assert _comparable(processing.answers)[1] == sorted(text.encode() for text in PAGES)
    assert _comparable(reading.answers)[1] == sorted(text.encode() for text in [*LINES, *PROCESSED])


@pytest.mark.parametrize("header", HEADERS)
def test_start_has_version_8_0_and_no_capabilities(broker_url: str, header: bytes) -> None:
    with _said(broker_url, header) as peer:
        answer = _first_frame(peer)
    assert answer.method == START
    assert answer.payload[4:6] == b"\x08\x00"
    table, offset = decode_table(answer.payload, 6)
    assert table["capabilities"] == {}
    # amqplib reads strings, integers, decimals, times and tables alone.
    assert {name for name, value in table.items() if not isinstance(value, str)} == {"capabilities"}
    assert (table["product"], table["version"]) == ("RabbitMQ", "3.10.8")
    assert answer.payload[offset:] == struct.pack(">I14sI5s", 14, b"PLAIN AMQPLAIN", 5, b"en_US")


@pytest.mark.parametrize("header", HEADERS)
def test_a_queue_with_other_flags_is_refused_in_amqp_0_8(broker_url: str, header: bytes) -> None:
    with Replay(broker_url, data.load("refused", data.AMQPLIB), header=header) as replay:
        pass
    assert _comparable(replay.answers) == _expected("refused")
    assert 406 in [int.from_bytes(frame.payload[4:6], "big") for frame in replay.answers if frame.method == CLOSE]


@pytest.mark.parametrize(
    "header",
    [b"AMQP\x00\x00\x08\x00", b"AMQP\x01\x01\x08\x01", b"AMQP\x01\x01\x00\x0a", b"AMQP\x00\x00\x09\x02",
     b"AMQP\x03\x01\x00\x00", b"GET / HT", b"\x00" * 8],
)  # fmt: skip
def test_another_header_is_answered_with_the_supported_one(broker_url: str, header: bytes) -> None:
    with _said(broker_url, header) as peer:
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := peer.recv(100):
                answer += chunk
    assert answer == b"AMQP\x00\x00\x09\x01"


def test_a_method_that_0_8_lacks_ends_the_connection(broker_url: str) -> None:
    """RabbitMQ closes the socket without a reason; the embedded broker sends the reason (540) in a close of 0-8."""
    nack = Frame(1, 1, struct.pack(">HHQB", 60, 120, 1, 0)).octets
    turns = (("client", nack), ("server", nack))  # the second one waits for one more frame
    replay = Replay(broker_url, up_to(data.load("refused", data.AMQPLIB), (20, 11), *turns))
    with contextlib.suppress(ConnectionResetError), replay:
        pass
    said = [frame.method for frame in replay.answers]
    assert said[:4] == [(10, 10), (10, 30), (10, 41), (20, 11)]
    assert said[4:] in ([], [(10, 60)])


async def test_our_and_the_original_crawl_programs_exchange_messages(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("exchtopic", "topic", auto_delete=True)
        for queue, key in (("proc", "rproc"), ("logq", "rlog")):
            await channel.declare_queue(queue, auto_delete=True)
            await channel.bind_queue(queue, "exchtopic", key)
        with Replay(broker_url, data.load("crawler", data.AMQPLIB)) as crawling:
            await asyncio.to_thread(crawling.wait_for, (10, 61))
        pages = [await channel.get("proc", no_ack=True) for _ in PAGES]
        assert [(page.body.decode(), page.properties.content_type) for page in pages if page] == [
            (text, None) for text in PAGES
        ]
        for text in PAGES:
            await channel.publish(text.encode(), exchange="exchtopic", routing_key="rproc")
        with Replay(broker_url, data.load("processor", data.AMQPLIB)) as processing:
            await asyncio.to_thread(processing.wait_for, (10, 61))
        lines = [await channel.get("logq", no_ack=True) for _ in [*LINES, *PROCESSED]]
        assert [line.body.decode() for line in lines if line] == [*LINES, *PROCESSED]


@contextlib.contextmanager
def _said(url: str, header: bytes) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), 60) as peer:
        peer.sendall(header)
        yield peer


def _first_frame(peer: socket.socket) -> Frame:
    answer = b""
    while not frames(answer):
        chunk = peer.recv(4096)
        assert chunk, "the broker hung up"
        answer += chunk
    return frames(answer)[0]
