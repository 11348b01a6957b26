"""The conversation with a provider that does not answer. `tests/web/login/test_oidc_routes.py` has the whole way."""

import asyncio

import pytest

from rabbitry.web.login.oidc import provider
from rabbitry.web.login.oidc.provider import Attempt, Conversation, SignInFailed
from rabbitry.web.login.oidc.settings import Provider
from tests.support.waiting import eventually


async def test_a_provider_that_hangs_is_asked_once_and_most_who_wait_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_TIMEOUT", "_AGAIN_AFTER"):
        monkeypatch.setattr(provider, name, 3600.0)
    asked: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    conversation = Conversation(Provider(issuer=issuer, client_id="rabbitry", address="http://127.0.0.1:8003/"))
    attempt = Attempt("state", "nonce", "verifier")
    waiting = [asyncio.create_task(conversation.begin(attempt)) for _ in range(provider._MOST)]
    await eventually(lambda: len(asked) == 1, "the first request")
    with pytest.raises(SignInFailed, match="too many people sign in with single sign-on now") as refused:
        await conversation.begin(attempt)
    assert refused.value.status == 503
    asked[0].transport.abort()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in done} == {SignInFailed}
    assert {getattr(error, "status", None) for error in done} == {502}
    with pytest.raises(SignInFailed, match="can't be reached"):  # and is left alone for a while
        await conversation.begin(attempt)
    assert len(asked) == 1
    server.close()
    await server.wait_closed()
