"""Queues: messages in order, consumers in turn, what is delivered and not yet settled."""

from warren.broker.queues.consumer import Consumer
from warren.broker.queues.message import Entry, Message
from warren.broker.queues.queue import Queue
from warren.broker.queues.reply_to import ReplyTo

__all__ = ["Consumer", "Entry", "Message", "Queue", "ReplyTo"]
