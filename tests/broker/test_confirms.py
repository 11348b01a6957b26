"""The confirms of a channel: the frames sent, and their order."""

from rabbitry.amqp.protocol.hot import encode_ack, encode_nack
from rabbitry.broker._confirms import Confirms


def _confirms(published: int) -> tuple[Confirms, list[bytes]]:
    written: list[bytes] = []
    confirms = Confirms(7, written.append)
    for _ in range(published):
        confirms.published += 1
    return confirms, written


def test_one_frame_confirms_all_up_to_a_tag() -> None:
    confirms, written = _confirms(5)
    confirms.confirm(1)
    confirms.confirm(5)
    assert written == [encode_ack(7, 1, multiple=False), encode_ack(7, 5, multiple=True)]
    assert (confirms.acked, confirms.unconfirmed) == (5, 0)


def test_a_rejected_publish_is_nacked_between_its_neighbours() -> None:
    confirms, written = _confirms(2)
    confirms.published += 1
    confirms.reject()
    confirms.published += 1
    confirms.confirm(4)
    assert b"".join(written) == encode_ack(7, 2, multiple=True) + encode_nack(7, 3) + encode_ack(7, 4, multiple=False)
    assert (confirms.acked, confirms.unconfirmed) == (3, 0)


def test_publishes_that_could_not_be_stored_are_nacked_each_once() -> None:
    confirms, written = _confirms(3)
    confirms.confirm(1)
    confirms.reject()
    confirms.refuse(3)
    assert b"".join(written) == encode_ack(7, 1, multiple=False) + encode_nack(7, 2) + encode_nack(7, 3)
    assert (confirms.acked, confirms.unconfirmed) == (1, 0)


def test_a_closed_channel_confirms_nothing() -> None:
    confirms, written = _confirms(3)
    confirms.stop()
    confirms.confirm(2)
    confirms.refuse(3)
    assert written == []
