"""A dashboard whose file descriptors are used up: it goes on for those who are there, says so once, and recovers."""

import contextlib
import resource
import socket

import httpx
import psutil
import websockets.sync.client

from tests.support.commands import Service, service
from tests.support.waiting import eventually_blocking

_MOST = 64
_SHORT = "out of file descriptors"


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=50).status_code == 200
    return False


def _limited(dashboard: Service, limit: int) -> tuple[int, str]:
    """Limit a dashboard's descriptors once it is ready; return its port and URL."""
    port = int(dashboard.wait_for(r"dashboard on http://127\.0\.0\.1:(\d+)/")[1])
    url = f"http://127.0.0.1:{port}/"
    eventually_blocking(lambda: _answers(url), "the page")
    resource.prlimit(dashboard.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    return port, url


def test_idle_connections_do_not_shut_out_others() -> None:
    with service("web", "--port", "0", "--broker", "amqp://127.0.0.1:1/") as dashboard, contextlib.ExitStack() as idle:
        port, url = _limited(dashboard, _MOST)
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws") as page:
            page.recv(timeout=50)
            for _ in range(2 * _MOST):
                idle.enter_context(socket.create_connection(("127.0.0.1", port)))
            dashboard.wait_for(_SHORT)
            assert _answers(url)
            page.ping().wait(50)
            process = psutil.Process(dashboard.process.pid)
            assert process.num_fds() <= _MOST
            idle.close()
            dashboard.wait_for("there are file descriptors for connections again")
            assert _answers(url)
        assert dashboard.output.count(_SHORT) == 1
        assert "Traceback" not in dashboard.output
        dashboard.process.terminate()
        assert dashboard.process.wait(50) == 0
