"""Queues: messages in order, consumers in turn, what is delivered and not yet settled."""

from rabbitry.broker.queues.classic import ClassicQueue
from rabbitry.broker.queues.consumer import Consumer
from rabbitry.broker.queues.message import Entry, Message
from rabbitry.broker.queues.queue import Queue
from rabbitry.broker.queues.quorum import QuorumQueue
from rabbitry.broker.queues.reply_to import ReplyTo

__all__ = ["ClassicQueue", "Consumer", "Entry", "Message", "Queue", "QuorumQueue", "ReplyTo"]
