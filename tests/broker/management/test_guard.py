"""The management API in a browser: pages of other sites can't use it, and programs go on as before."""

import asyncio
import base64
import http.client
import json
from collections.abc import AsyncIterator

import pytest

from rabbitry.broker import Broker, BrokerConfig

_LOGIN = "Basic " + base64.b64encode(b"guest:guest").decode()
_JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        yield broker


async def _ask(broker: Broker, method: str, headers: dict[str, str], path: str = "/api/queues/%2F/q") -> int:
    """Send a request with these headers and no others but the login, and return the status of its answer."""
    port = broker.management_port or 0
    headers = {name: value.format(port=port) for name, value in headers.items()}

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        try:
            body = None if method == "GET" else json.dumps({"durable": False}).encode()
            connection.request(method, path, body, {"Authorization": _LOGIN, **headers})
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain", "Origin": "http://evil.example"},
        {**_JSON, "Origin": "http://evil.example"},
        {**_JSON, "Origin": "null"},
        {**_JSON, "Origin": "http://127.0.0.1:1"},
        {**_JSON, "Origin": "http://127.0.0.1:{port}.evil.example"},
        {**_JSON, "Referer": "http://evil.example/"},
        {**_JSON, "Sec-Fetch-Site": "cross-site"},
        {**_JSON, "Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_requests_from_another_site_are_refused(broker: Broker, method: str, headers: dict[str, str]) -> None:
    assert await _ask(broker, method, headers) == 403
    assert not broker.vhosts["/"].queues


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_an_unknown_host_name_is_refused(broker: Broker, method: str, host: str) -> None:
    assert await _ask(broker, method, {**_JSON, "Host": host}, "/api/overview") == 421


@pytest.mark.parametrize(
    "headers",
    [
        _JSON,
        {},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/x-www-form-urlencoded"},  # curl -d
        {**_JSON, "Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
        {**_JSON, "Host": "localhost:{port}"},
        {**_JSON, "Host": "LOCALHOST"},
        {**_JSON, "Host": "[::1]:{port}"},
    ],
)
async def test_programs_and_same_origin_pages_are_accepted(broker: Broker, headers: dict[str, str]) -> None:
    assert await _ask(broker, "PUT", headers) == 201
    assert await _ask(broker, "GET", headers) == 200
