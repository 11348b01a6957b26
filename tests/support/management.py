"""A client of the management API, the embedded broker's and RabbitMQ's."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ


class Api:
    """A client of either API; answers are (status, parsed body)."""

    def __init__(self, url: str, login: str = "guest:guest") -> None:
        self.url = url.rstrip("/")
        self._login = base64.b64encode(login.encode()).decode()

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return self.raw(method, path, json.dumps(body).encode() if body is not None else None)

    def location(self, path: str, body: object) -> str:
        """Post, and return the address of the created object."""
        headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)  # noqa: S310 - our own URL
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own URL
            return str(answer.headers["location"])

    def raw(self, method: str, path: str, data: bytes | None) -> tuple[int, Any]:
        headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - our own URL
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own URL
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())


def management_url(server: RabbitMQ) -> str:
    assert server.management_url is not None
    return server.management_url


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode()


@contextmanager
def broker_and_management(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Yield the URLs of a broker and of its management API: RabbitMQ's if the fixture's parameter is "rabbitmq"."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        yield server.url, management_url(server)
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        yield broker.url, f"http://127.0.0.1:{port}"
