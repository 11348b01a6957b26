"""Slots, as they are on the broker."""

from rabbitry.flow.wiring.slots import slot_arguments, slot_queues


def test_a_slot_is_a_queue_of_one_token_for_one_worker() -> None:
    assert slot_queues("shop", "ask", 2) == ["shop.slot.ask.1", "shop.slot.ask.2"]
    assert slot_arguments({"x-queue-type": "quorum"}) == {
        "x-queue-type": "quorum", "x-single-active-consumer": True, "x-max-length": 1, "x-expires": 604_800_000,
    }  # fmt: skip
