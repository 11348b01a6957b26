"""TLS of the management API's client, its paths, and odd answers; tests/cli/test_listings.py tests its requests."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import management
from rabbitry.apps.management import Unanswerable, decode_answer, fetch, get_object, open_client, place_of
from rabbitry.exceptions import ConnectFailed, Undecodable

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


def test_an_answer_may_be_nested_deeper_than_can_be_decoded() -> None:
    deep = b'[{"name": "a", "arguments": %b1%b}, {"name": "b"}]' % (b'{"x": ' * 5000, b"}" * 5000)
    found = decode_answer(deep, list[dict[str, object]])
    assert [one["name"] for one in found] == ["a", "b"]
    for wrong in (b"[" * 5000, b"{}", b"", b'[{"a": ' + b"[" * 5000):
        with pytest.raises(Undecodable):
            decode_answer(wrong, list[dict[str, object]])


def test_names_that_the_api_has_no_path_for_are_not_asked_for() -> None:
    assert place_of("/", "a b/c") == "%2F/a%20b%2Fc"
    assert place_of("...") == "..."
    for name in ("", ".", "..", "\u20ac" * 86):
        with pytest.raises(Unanswerable, match="can't be asked for"):
            place_of("/", name)
