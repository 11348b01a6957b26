"""Any bytes, from a client to the broker or from a broker to the client, cause documented errors only.

Recorded sessions (corpus/) are mutated and sent again. Hypothesis prints an input that does harm; add it to corpus/
under a name that describes it. The broker's half runs without sockets, so that thousands of inputs take seconds.
"""

import asyncio
import gc
import logging
import resource
from collections.abc import Iterator
from random import Random
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._connection import ClientConnection
from rabbitry.runtime.io_thread import new_event_loop
from tests.fuzz.mutations import corpus, frames, in_chunks, mutated
from tests.fuzz.replay import Replay, Step, decode
from tests.fuzz.session import session

_TURNS: Final = 4
"""Loop iterations that the broker gets after each chunk: deferred work runs in the next one."""
_MOST_TURNS: Final = 2000
_LONG: Final = 30.0
"""Seconds; neither side needs them unless the machine stalls."""
_CLOSE: Final = b"\x00\x0a\x00\x32"
_ANY: Final = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


class _Socket(asyncio.Transport):
    """A socket that accepts and keeps everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.reading = True
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Accept the end of the output: nobody reads it any more."""

    def is_reading(self) -> bool:
        return self.reading and not self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Fuzzed:
    """A broker with simulated clients. Errors in its loop are raised."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_failure)
        self._failures: list[dict[str, Any]] = []
        self.broker = Broker(BrokerConfig(port=0))
        self.loop.run_until_complete(self.broker.__aenter__())

    def close(self) -> None:
        for connection in list(self.broker.connections):  # left by a test that failed
            connection.driver.connection_lost(None)
        self.loop.run_until_complete(self.broker.__aexit__(None, None, None))
        self.loop.close()

    def say(self, chunks: Iterator[bytes]) -> bytes:
        """Simulate a client that sends these bytes and disconnects. Return the broker's output."""
        return self.loop.run_until_complete(self._say(chunks))

    async def _say(self, chunks: Iterator[bytes]) -> bytes:
        socket = _Socket()
        connection = ClientConnection(self.broker.shared, self.broker.host, self.broker.port)
        connection.driver.connection_made(socket)
        try:
            for chunk in chunks:
                if socket.closing:
                    break
                connection.driver.data_received(chunk)
                await self._turns(socket)
        finally:
            connection.driver.connection_lost(None)
        await self._turns(socket)
        assert connection.closed.done()
        assert not self.broker.connections
        assert not self.broker.dispatcher.touched
        assert not self.broker.shared.replies
        self._tidy()
        if self._failures:
            raise AssertionError(f"in the broker's loop: {self._failures}") from self._failures[0].get("exception")
        return bytes(socket.sent)

    async def _turns(self, socket: _Socket) -> None:
        for turn in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if turn >= _TURNS and (socket.reading or socket.closing):
                return
        # The broker delays the answer to a refused login on purpose; no other answer may take so long.
        socket.closing = True

    def _tidy(self) -> None:
        """Delete everything that the client declared, so that the next one finds an empty broker."""
        vhost = self.broker.vhosts["/"]
        for queue in list(vhost.queues.values()):
            assert queue.owner is None, "an exclusive queue outlived its connection"
            assert not len(queue.turns), "a consumer outlived its connection"
            vhost.delete_queue(queue)
        for exchange in [known for known in vhost.exchanges.values() if known.name and known.name[:4] != "amq."]:
            vhost.delete_exchange(exchange.name, if_unused=False)

    def _on_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failures.append(context)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[_Fuzzed]:
    logging.disable(logging.CRITICAL)  # each refusal is logged, and there would be thousands of lines
    broker = _Fuzzed()
    yield broker
    broker.close()
    logging.disable(logging.NOTSET)


def _say_changed(fuzzed: _Fuzzed, random: Random) -> None:
    sessions = corpus("broker")
    pieces = list(frames(sessions[random.choice(sorted(sessions))]))
    others = list(frames(sessions[random.choice(sorted(sessions))]))
    _check_answer(fuzzed.say(in_chunks(random, b"".join(mutated(random, pieces, others)))))


def _check_answer(said: bytes) -> None:
    """Check that whole frames arrive, and that a close has one of AMQP's reply codes."""
    for frame in frames(said):
        if frame.startswith(b"AMQP"):
            continue
        assert len(frame) == 8 + int.from_bytes(frame[3:7], "big")
        assert frame[-1] == 0xCE
        if frame[0] == 1 and frame[7:11] == _CLOSE:
            code = Reply(int.from_bytes(frame[11:13], "big"))
            assert code is not Reply.INTERNAL_ERROR


@pytest.mark.parametrize("name", sorted(corpus("broker")))
def test_each_session_of_the_corpus_ends_with_documented_errors(fuzzed: _Fuzzed, name: str) -> None:
    said = fuzzed.say(frames(corpus("broker")[name]))
    _check_answer(said)
    assert said.startswith((b"\x01\x00\x00", b"AMQP")), "the broker greets, or says what it speaks"


@_ANY
@given(random=st.randoms(use_true_random=False))
def test_the_broker_answers_anything_with_documented_errors(fuzzed: _Fuzzed, random: Random) -> None:
    _say_changed(fuzzed, random)


def _changed_steps(random: Random) -> list[Step]:
    recorded = decode(corpus("client")["session"])
    everything = [frame for _, part in recorded for frame in frames(part)]
    steps = [(number, list(frames(part))) for number, part in recorded]
    for _ in range(random.randint(1, 2)):
        at = random.randrange(len(steps))
        steps[at] = (steps[at][0], mutated(random, steps[at][1], everything))
    return [(number, b"".join(part)) for number, part in steps]


async def _hear(steps: list[Step]) -> None:
    async with Replay(steps) as replay:
        await session(f"amqp://guest:guest@127.0.0.1:{replay.port}/")
        left = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
        if left:
            await asyncio.wait(left, timeout=_LONG)  # the server's side of the connection
    assert asyncio.all_tasks() == {asyncio.current_task()}


def _run(steps: list[Step]) -> None:
    failures: list[dict[str, Any]] = []
    loop = new_event_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        loop.run_until_complete(_hear(steps))
    finally:
        loop.close()
    assert not failures, failures


def test_the_client_completes_its_session_with_the_recording() -> None:
    async def hear() -> list[Exception]:
        async with Replay(decode(corpus("client")["session"]), patience=_LONG) as replay:
            return [*await session(f"amqp://guest:guest@127.0.0.1:{replay.port}/", timeout=_LONG)]

    assert asyncio.run(hear()) == []


@settings(_ANY, max_examples=60)
@given(random=st.randoms(use_true_random=False))
def test_the_client_answers_anything_with_documented_errors(random: Random) -> None:
    logging.disable(logging.CRITICAL)
    try:
        _run(_changed_steps(random))
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_two_hundred_thousand_inputs_do_not_leak(fuzzed: _Fuzzed) -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed {seed}")
    for number in range(200_000):
        _say_changed(fuzzed, Random(seed + number))
        if number == 20_000:
            before = _memory()
    assert _memory() - before < 20 << 20


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_five_thousand_answers_do_not_leak() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed {seed}")
    logging.disable(logging.CRITICAL)
    try:
        for number in range(5_000):
            _run(_changed_steps(Random(seed + number)))
            if number == 500:
                before = _memory()
    finally:
        logging.disable(logging.NOTSET)
    assert _memory() - before < 20 << 20


def _memory() -> int:
    """Return the peak memory of this process in bytes."""
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
