"""The names and arguments of the queues of keys."""

import pytest

from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.flow._key_limit import LONGEST_NAMES
from rabbitry.flow.wiring.keys import hashed, key_rate_arguments, key_rate_queue, key_slot_arguments, key_slot_queue
from rabbitry.flow.wiring.tokens import holds_tokens


def test_queues_are_named_by_the_hash_of_their_key() -> None:
    key = hashed("alice")
    assert key_rate_queue("shop", "pay", key) == f"shop.key.pay.{key}.rate"
    assert key_slot_queue("shop", "pay", key, 2) == f"shop.key.pay.{key}.2"
    assert key != hashed("bob")


@pytest.mark.parametrize("key", ["", "é" * 100_000, "\x00", "\ud800", "a b/c.#*"])
def test_any_key_has_a_short_name(key: str) -> None:
    encode_short(key_rate_queue("a" * 100, "s" * (LONGEST_NAMES - 100), hashed(key)))
    assert len(hashed(key)) == 24


def test_queues_have_one_active_worker_and_disappear() -> None:
    rate = {"x-queue-type": "classic", "x-single-active-consumer": True, "x-expires": 90_000}
    assert key_rate_arguments() == rate
    assert key_slot_arguments() == {**rate, "x-max-length": 1}
    assert holds_tokens(key_rate_queue("shop", "pay", hashed("alice")), rate)
    assert holds_tokens(key_slot_queue("shop", "pay", hashed("alice"), 1), rate)
