"""The recorded conversations are whole: pamqp reads every frame, and the expected ones are there."""

import datetime
from collections.abc import Iterator

import pytest
from pamqp import base, commands, frame
from pamqp import header as content

from tests import data

# The recorded client breaks framing here on purpose.
_BROKEN = {"frame_error_501", "wrong_protocol"}
_CLOSED = {
    "login_refused": 403, "vhost_missing": 530, "not_implemented_540": 540, "channel_error_504": 504,
    "unexpected_frame_505": 505, "frame_error_501": 501, "connection_forced_320": 320,
    "channel_closed_403": 403, "channel_closed_404": 404, "channel_closed_405": 405, "channel_closed_406": 406,
    "unknown_delivery_tag": 406,
}  # fmt: skip


def _frames(stream: bytes) -> Iterator[object]:
    while stream:
        size, _, value = frame.unmarshal(stream)
        assert size > 0
        stream = stream[size:]
        yield value


@pytest.mark.parametrize("name", data.names())
def test_the_turns_are_all_that_was_said(name: str) -> None:
    captured = data.load(name)
    for side, said in (("client", captured.client), ("server", captured.server)):
        assert b"".join(part for who, part in captured.turns if who == side) == said


@pytest.mark.parametrize("name", data.names())
def test_every_frame_can_be_read(name: str) -> None:
    captured = data.load(name)
    frames = list(_frames(captured.server))
    if name not in _BROKEN:
        frames += list(_frames(captured.client))
    assert frames


@pytest.mark.parametrize(("name", "code"), _CLOSED.items())
def test_the_server_closed_with(name: str, code: int) -> None:
    closes = [
        value
        for value in _frames(data.load(name).server)
        if isinstance(value, commands.Connection.Close | commands.Channel.Close)
    ]
    assert [close.reply_code for close in closes] == [code]


def test_all_properties_come_back() -> None:
    captured = data.load("properties")
    sent = [value for value in _frames(captured.client) if isinstance(value, content.ContentHeader)]
    got = [value for value in _frames(captured.server) if isinstance(value, content.ContentHeader)]
    assert [bytes_of(value) for value in got] == [bytes_of(value) for value in sent]
    assert sent[0].properties.timestamp == datetime.datetime(2024, 2, 29, 12, 30, 45, tzinfo=datetime.UTC)
    assert all(getattr(sent[0].properties, name) for name in base.BasicProperties.attributes())


def bytes_of(value: content.ContentHeader) -> bytes:
    return value.marshal()
