"""Tokens of schedules, as they are on the broker."""

import pytest

from rabbitry.flow.wiring.schedules import Fired, Token, encode_token, read_token, schedule_queue, token_arguments


def test_a_token_comes_back_as_it_was() -> None:
    token = Token(1_795_000_000, [Fired(1_795_000_000, 1_795_000_000.25, "ada")])
    assert read_token(encode_token(token), 1_795_000_001.0) == token


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"done": "soon"}', b'{"done": 1e300}', b'{"done": 99999999999999999}', b'{"done": 253402300799}',
     b'{"done": -1}'],
)  # fmt: skip
def test_a_token_that_is_none_has_no_time(body: bytes) -> None:
    assert read_token(body, 1_795_000_000.0) == Token(0)


def test_a_token_of_another_program_has_few_ticks() -> None:
    token = Token(17, [Fired(17, 17.5, "ada")] * 1000)
    assert len(read_token(encode_token(token), 18.0).fired) == 10


def test_the_queue_has_a_single_active_consumer() -> None:
    assert schedule_queue("shop", "clean") == "shop.schedule.clean"
    assert token_arguments({"x-queue-type": "quorum"}) == {"x-queue-type": "quorum", "x-single-active-consumer": True}
