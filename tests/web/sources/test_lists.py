"""Rows of what a management API answers, which is not always what its documentation says."""

from rabbitry.web.sources.fields import features
from rabbitry.web.sources.lists import LISTINGS, queue_row


def test_a_queue_with_everything() -> None:
    row = queue_row(
        {
            "vhost": "/",
            "name": "tasks",
            "type": "quorum",
            "durable": True,
            "arguments": {"x-queue-type": "quorum", "x-message-ttl": 5, "x-own": 1},
            "policy": "p",
            "state": "running",
            "messages": 3,
            "messages_ready": 2,
            "messages_unacknowledged": 1,
            "consumers": 4,
            "message_bytes": 77,
            "message_stats": {"publish_details": {"rate": 1.26}, "ack_details": {"rate": 2}},
        }
    )
    shown = dict(zip([column.name for column in LISTINGS[0].columns], row, strict=True))
    assert shown == {
        "vhost": "/", "name": "tasks", "type": "quorum", "features": "D TTL Args", "policy": "p", "state": "running",
        "ready": 2, "unacked": 1, "messages": 3, "consumers": 4, "bytes": 77,
        "incoming": 1.3, "delivered": 0.0, "acked": 2,
    }  # fmt: skip


def test_what_is_missing_or_odd_is_empty_or_0() -> None:
    empty = queue_row({"vhost": "/", "name": "new"})
    odd: dict[str, object] = {"vhost": "/", "name": "new", "policy": None, "messages": "undefined", "arguments": []}
    odd |= {"consumers": True}
    odd |= {"message_stats": {"publish_details": {"rate": float("nan")}}, "state": None, "type": "undefined"}
    assert queue_row(odd) == empty
    assert empty[2:6] == ("classic", "", "", "running")
    assert set(empty[6:]) == {0}


def test_arguments_that_are_no_table_have_no_features() -> None:
    assert features({"arguments": "many", "durable": "yes"}) == ""
