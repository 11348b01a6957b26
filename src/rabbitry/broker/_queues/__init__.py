"""Queues and streams: ordered messages, consumers, unsettled deliveries."""

from __future__ import annotations

from rabbitry.broker._queues.backlog import Backlog
from rabbitry.broker._queues.classic import ClassicQueue
from rabbitry.broker._queues.queue import Owner, Queue, Subscription
from rabbitry.broker._queues.quorum import PrioritizedQuorumQueue, QuorumQueue
from rabbitry.broker._queues.reply_to import ReplyTo
from rabbitry.broker._queues.stream import Stream

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
]
