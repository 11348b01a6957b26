"""Queues: messages in order, consumers in turn, what is delivered and not yet settled."""

from __future__ import annotations

from rabbitry.broker.queues.backlog import Backlog
from rabbitry.broker.queues.classic import ClassicQueue
from rabbitry.broker.queues.queue import Owner, Queue
from rabbitry.broker.queues.quorum import QuorumQueue
from rabbitry.broker.queues.reply_to import ReplyTo

__all__ = ["Backlog", "ClassicQueue", "Owner", "Queue", "QuorumQueue", "ReplyTo"]
