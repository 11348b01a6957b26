"""A consumer of a queue, seen from the broker."""

import sys
from typing import TYPE_CHECKING

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.tables import Table, encode_short

if TYPE_CHECKING:
    from rabbitry.broker.channel import Channel
    from rabbitry.broker.queues.queue import Queue


class Consumer:
    """A consumer: which channel it is on, what it may have, and what it has."""

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "most",
        "no_ack",
        "parked",
        "prefetch",
        "prefix",
        "priority",
        "queue",
        "tag",
        "unsettled",
    )

    def __init__(
        self,
        channel: "Channel",
        queue: "Queue",
        tag: str,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        priority: int,
        arguments: Table,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.most = prefetch if prefetch and not no_ack else sys.maxsize
        """The number of unsettled deliveries that it may have; one without acknowledgements never has any."""
        self.priority = priority
        self.arguments = arguments
        self.unsettled = 0
        self.parked = False
        self.prefix = hot.deliver_prefix(encode_short(tag))

    def has_room(self) -> bool:
        """Whether it may get another message: prefetch of consumer and channel, and room in the socket's buffer."""
        channel = self.channel
        # The channel's prefetch holds for consumers without acknowledgements too, though they never fill it.
        return (
            channel.can_deliver
            and self.unsettled < self.most
            and (not channel.channel_prefetch or channel.unsettled_by_consumers < channel.channel_prefetch)
        )
