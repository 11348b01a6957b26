"""Direct reply-to: a message published to the reply name goes straight to a channel, without a queue.

RabbitMQ's docs/direct-reply-to.
"""

from __future__ import annotations

from typing import Final, Protocol

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.broker.message import Message

REPLY_TO: Final = "amq.rabbitmq.reply-to"


class ReplyChannel(Protocol):
    """The part of a reply consumer's channel that the consumer uses."""

    def deliver_reply(self, prefix: bytes, message: Message) -> None:
        """Send a reply; `prefix` is the start of its deliver method."""


class ReplyTo:
    """A channel's consumer of replies, for publishers. It has the methods of a queue that they use.

    name: replaces `reply_to` in the requests that the channel publishes.
    """

    id = 0

    def __init__(self, channel: ReplyChannel, tag: str, name: str) -> None:
        self.channel = channel
        self.tag = tag
        self.name = name
        self._prefix = hot.deliver_prefix(encode_short(tag))

    def push(self, message: Message) -> bool:
        """Deliver a reply."""
        self.channel.deliver_reply(self._prefix, message)
        return True

    def dispatch(self, now: float = 0.0) -> None:
        """Do nothing: no message waits here."""
