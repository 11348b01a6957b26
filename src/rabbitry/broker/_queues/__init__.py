"""Queues and streams: ordered messages, consumers, unsettled deliveries."""

from __future__ import annotations

from rabbitry.broker._queues.arguments import Kind
from rabbitry.broker._queues.backlog import Backlog
from rabbitry.broker._queues.classic import ClassicQueue
from rabbitry.broker._queues.queue import Owner, Queue, Subscription
from rabbitry.broker._queues.quorum import PrioritizedQuorumQueue, QuorumQueue
from rabbitry.broker._queues.reply_to import ReplyTo
from rabbitry.broker._queues.stream import Stream
from rabbitry.broker.compat import Release

__all__ = [
    "Backlog",
    "ClassicQueue",
    "Owner",
    "PrioritizedQuorumQueue",
    "Queue",
    "QuorumQueue",
    "ReplyTo",
    "Stream",
    "Subscription",
    "queue_class",
]


def queue_class(kind: Kind, release: Release) -> type[Queue]:
    """Return the class of a kind of queue."""
    quorum = PrioritizedQuorumQueue if release.has_quorum_priorities else QuorumQueue
    kinds: dict[Kind, type[Queue]] = {"classic": ClassicQueue, "quorum": quorum, "stream": Stream}
    return kinds[kind]
