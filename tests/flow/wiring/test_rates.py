"""Limits of rate, as they are on the broker."""

import pytest

from rabbitry.flow.wiring.rates import (
    Minted,
    encode_minted,
    rate_arguments,
    rate_queue,
    read_minted,
    tokens_arguments,
    tokens_queue,
)


def test_a_state_comes_back_as_it_was() -> None:
    assert read_minted(encode_minted(Minted(1_795_000_000.25))) == Minted(1_795_000_000.25)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"until": "soon"}', b"[]"])
def test_a_state_that_is_none_has_no_time(body: bytes) -> None:
    assert read_minted(body) == Minted(0)


def test_both_queues_disappear_unused_and_one_worker_has_the_state() -> None:
    assert (tokens_queue("shop", "ask"), rate_queue("shop", "ask")) == ("shop.tokens.ask", "shop.rate.ask")
    week = 604_800_000
    assert tokens_arguments({"x-queue-type": "quorum"}) == {"x-queue-type": "quorum", "x-expires": week}
    assert rate_arguments({}) == {"x-expires": week, "x-single-active-consumer": True}
