"""Misuse raises an error that explains it; nobody waits forever, and the connection stays usable."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import RecoveryEvent
from rabbitry.exceptions import UsageError
from tests.support.waiting import eventually

_BAD: list[tuple[dict[str, Any], str]] = [
    ({"body": "text"}, "a body must be bytes, not str"),
    ({"body": "long" * 100_000}, "a body must be bytes, not str"),
    ({"body": None}, "a body must be bytes, not NoneType"),
    ({"routing_key": 5}, "a name must be text, not int"),
    ({"exchange": None}, "a name must be text, not NoneType"),
    ({"routing_key": "k" * 300}, "255"),
    ({"properties": rabbitry.Properties(headers={"a": object()})}, "'a': object has no"),  # type: ignore[dict-item] # as users do
]


async def test_an_invalid_message_is_refused_and_the_channel_stays_open(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        for arguments, text in _BAD:
            with pytest.raises(UsageError, match=text):
                await channel.publish(**{"body": b"x", "routing_key": queue} | arguments)
        body = bytearray(b"mine")
        sent = await channel.send(body, routing_key=queue)  # type: ignore[arg-type] # as users do
        body[:] = b"else"
        await sent
        got = await channel.get(queue, no_ack=True)
        assert got is not None
        assert got.body == b"mine"
        assert await channel.get(queue) is None


def test_an_invalid_message_is_refused_in_scripts(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True).name
        for arguments, text in _BAD:
            with pytest.raises(UsageError, match=text):
                channel.send(**{"body": b"x", "routing_key": queue} | arguments).result(90)
        channel.send(b"x", routing_key=queue).result(90)
        channel.wait_for_confirms(timeout=90)


def test_iterating_outside_of_the_block_is_an_error_in_scripts_too(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True).name
        with pytest.raises(UsageError, match="iterate within"):
            next(channel.consume(queue))


async def test_an_error_of_on_recovery_is_logged_and_ignored(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: list[str] = []

    def tell(event: RecoveryEvent) -> None:
        kinds.append(event.kind)
        raise ZeroDivisionError("a mistake of the user's")

    async with rabbitry.connect(broker_url, on_recovery=tell) as connection:
        channel = await connection.channel()
        assert connection._session.link is not None
        connection._session.link.driver.abort()
        await eventually(lambda: "recovered" in kinds, "the recovery")
        async with asyncio.timeout(90):
            await channel.declare_queue(exclusive=True)
    assert "a mistake of the user's" in caplog.text


_ENDS = {
    "a loop that ends with its connection open": """
async def main():
    connection = await rabbitry.connect(url)
    channel = await connection.channel()
    queue = (await channel.declare_queue(exclusive=True)).name
    await channel.consume(queue).start()
    await channel.send(b"x", routing_key=queue)
asyncio.run(main())
""",
    "a script that ends with its connection open": """
connection = rabbitry.connect_blocking(url)
channel = connection.channel()
queue = channel.declare_queue(exclusive=True).name
deliveries = channel.consume(queue).__enter__()
futures = [channel.send(b"x", routing_key=queue) for _ in range(100)]
""",
    "Ctrl-C while a script waits": """
with rabbitry.connect_blocking(url) as connection:
    channel = connection.channel()
    queue = channel.declare_queue(exclusive=True).name
    with channel.consume(queue) as deliveries:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            next(deliveries)
        except KeyboardInterrupt:
            pass
    channel.declare_queue(queue, passive=True)
""",
}


@pytest.mark.parametrize("what", _ENDS)
def test_programs_end(embedded_url: str, what: str) -> None:
    head = f"import asyncio, os, signal, threading, rabbitry\nurl = {embedded_url!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{head}{_ENDS[what]}\nprint('end')"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
