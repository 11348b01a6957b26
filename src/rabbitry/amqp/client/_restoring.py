"""Consumers that come back by themselves: the broker cancelled them, or a recovery may not find their queues yet."""

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from rabbitry.amqp.client.consuming import Consumer
from rabbitry.exceptions import ChannelClosed, ConnectionClosed, RequestTimeout, UsageError
from rabbitry.runtime import backoff

if TYPE_CHECKING:
    from rabbitry.amqp.client.channel import Channel

_log = logging.getLogger(__name__)


async def consume_again(channel: "Channel", consumer: Consumer, *, after_recovery: bool) -> None:
    """Start a consumer anew, with growing pauses until that works, or consumer, channel or connection has ended.

    after_recovery: everything was declared just now, so look at once; else what was declared over the connection is
    declared before each attempt. A queue whose node is down is not there (404) until the node is back.
    """
    connection = channel.connection
    for attempt in itertools.count(0 if after_recovery else 1):
        if attempt:
            await asyncio.sleep(backoff.AGAIN.pause(attempt))
        if consumer.has_ended or not channel.is_open:
            return
        try:
            if attempt:
                await connection.restore_topology()
            async with await connection.channel() as probe:  # a 404 closes the channel that it comes on
                await probe.declare_queue(connection.topology.current(consumer.queue), passive=True)
            await channel.start_again(consumer)
            return
        except ConnectionClosed as error:
            if connection.close_reason is not None:
                consumer.end(error)
                return  # else it recovers, and the next attempt waits for that
        except (ChannelClosed, RequestTimeout, UsageError) as error:
            _log.warning("consumer of %r not restored yet: %s", consumer.queue, error)
