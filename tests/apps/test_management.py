"""TLS of the management API's client, and empty objects; tests/cli/test_listings.py tests its requests."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import management
from rabbitry.apps.management import fetch, get_object, open_client
from rabbitry.exceptions import ConnectFailed

_LOGIN = parse_url("amqp://localhost/")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_of_a_trusted_authority_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    management._trusted.cache_clear()
    try:
        async with await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            async with open_client(f"https://localhost:{port}", _LOGIN) as client:
                if trusted:
                    assert await fetch(client, "/api/queues") == b"[]"
                else:
                    with pytest.raises(ConnectFailed, match="certificate verify failed"):
                        await fetch(client, "/api/queues")
    finally:
        management._trusted.cache_clear()


async def test_plain_http_needs_no_authority() -> None:
    async with await asyncio.start_server(_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_client(f"http://127.0.0.1:{port}", _LOGIN) as client:
            assert await fetch(client, "/api/queues") == b"[]"


async def test_an_object_without_members_is_one_though_rabbitmq_writes_a_list() -> None:
    async with await asyncio.start_server(_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_client(f"http://127.0.0.1:{port}", _LOGIN) as client:
            assert await get_object(client, "/api/queues/%2F/q?columns=consumers") == {}
