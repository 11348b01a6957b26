"""Links to child processes: over a port as on Windows, where a child inherits no socket and gets no SIGTERM."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from rabbitry.runtime import children, parent
from rabbitry.runtime._links import Port
from rabbitry.runtime.children import Child
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import PARENT, address_of
from tests.support.waiting import eventually


@pytest.fixture
def over_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children connect to ports."""
    monkeypatch.setattr(children, "new_link", Port)


@pytest.fixture
def fresh_parent() -> Iterator[None]:
    """This process looks for its parent anew, and forgets it afterwards."""
    parent.parent.cache_clear()
    yield
    parent.parent.cache_clear()


@pytest.mark.usefixtures("over_ports")
async def test_a_child_reports_over_a_port_and_ends_in_order_when_it_is_told_to() -> None:
    # With a PYTHONPATH it is started, not forked by tests/support/forking.py.
    child = Child("broker", ["broker", "--memory", "--port", "0", "--no-management"], {"PYTHONPATH": "/nowhere"})
    keeping = asyncio.create_task(child.keep())
    async with asyncio.timeout(120):
        await child.ready.wait()
        await child.end(60)
        assert await keeping == ExitCode.DONE


@pytest.mark.usefixtures("over_ports")
async def test_the_error_that_ends_a_child_comes_over_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        child = Child("broker", ["broker", "--memory", "--port", port, "--no-management"], {"PYTHONPATH": "/nowhere"})
        async with asyncio.timeout(120):
            code = await child.keep()
    assert code not in (0, None)
    assert port in child.why(code)


@pytest.mark.usefixtures("over_ports")
async def test_a_child_that_ends_before_it_connects_is_no_wait() -> None:
    child = Child("broker", ["broker", "--no-such-option"], {"PYTHONPATH": "/nowhere"})
    async with asyncio.timeout(120):
        assert await child.keep() == ExitCode.USAGE


async def test_who_does_not_know_the_secret_is_not_heard(monkeypatch: pytest.MonkeyPatch, fresh_parent: None) -> None:
    link = Port()
    opening = asyncio.create_task(link.open())
    port = int(link.name.split()[1])
    for wrong in (b"wrong\n", b"", b"\xff\n", b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(wrong)
    monkeypatch.setenv(PARENT, link.name)
    above = await asyncio.to_thread(parent.parent)
    assert above is not None
    above.report(parent.Report("it failed"))
    async with asyncio.timeout(60):
        reader, writer = await opening
        assert parent.read_report(await reader.readline()).error == "it failed"
    writer.close()
    above._end.close()
    link.close()


async def test_a_connection_without_a_secret_is_closed_if_the_wait_is_cancelled() -> None:
    link = Port()
    opening = asyncio.create_task(link.open())
    with socket.create_connection(("127.0.0.1", int(link.name.split()[1]))) as other:
        other.setblocking(False)
        await eventually(lambda: "writer" in opening.get_stack()[0].f_locals, "the connection to be accepted")
        opening.cancel()
        await asyncio.wait((opening,))
        async with asyncio.timeout(60):
            assert await asyncio.get_running_loop().sock_recv(other, 1) == b""
    link.close()


async def test_a_parent_that_is_gone_ends_the_child(monkeypatch: pytest.MonkeyPatch, fresh_parent: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    ended: list[int] = []
    monkeypatch.setattr(parent, "signal_self", ended.append)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setenv(PARENT, address_of(port, "secret"))
    above = parent.parent()
    assert above is not None
    above.watch(0.0)
    await eventually(lambda: len(ended) == 2, "the child to end itself")
    above._end.close()


def test_a_port_passes_no_sockets_on() -> None:
    link = Port()
    with pytest.raises(NotImplementedError, match="inherit no sockets"):
        link.options((3,))
    link.close()
