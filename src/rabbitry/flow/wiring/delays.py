"""Delays of any length: queues in which a message waits on the broker until it is due. No worker takes part.

Each of the queues keeps a message for a power of two seconds, and has an exchange of its name before it. The binary
digits of a delay are the words of a routing key in the message's CC header. By these an exchange passes the message to
its queue, or directly to the exchange of half the time; a queue passes it to that exchange when its time is over. The
last queue passes it to the queue of its other routing key. Therefore messages of all apps and of all delays share these
few queues, and messages with the same delay stay in their order: all in one queue have the same time to live, so that
none waits behind a later one.

There are two last queues. RabbitMQ keeps a message that it can't pass on, and passes nothing else on while 32 such
messages of one queue wait. The first, `rabbitry.delay.due`, can pass on everything: its exchange has a binding for each
target, made by whoever publishes, and an alternate exchange. That leads to the second, `rabbitry.delay.last`, which
uses the default exchange. A message whose target is gone waits there, and holds up only those that come there too: to a
queue that was deleted and declared again since it was bound. For several queues a message is published several times,
since a binding for one of them would hide that another one has none. The keys of messages for the first begin with
another word: programs of earlier versions, which know the second alone, bind it for all keys that begin as theirs do,
and would have each of these messages delivered twice.

The queues are declared when the first such message is published, by whoever publishes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client import Connection, Properties
from rabbitry.exceptions import AccessRefused, NotFound, ResourceLocked, UsageError
from rabbitry.flow.message import EXCHANGE, ROUTING_KEY, Publication

if TYPE_CHECKING:
    from rabbitry.flow.wiring.declarer import Declarer

_LEVELS: Final = 27
_NAME: Final = "rabbitry.delay"
_COPIES: Final = "CC"
LAST: Final = f"{_NAME}.last"
"""The exchange of the last queues, and the queue that passes messages on over the default exchange."""
DUE: Final = f"{_NAME}.due"
"""The queue that passes messages on to bound queues, and the exchange of these bindings."""
_UNBOUND: Final = f"{_NAME}.unbound"
"""The exchange of messages that no binding of DUE takes."""
_WORDS: Final = (_NAME, "rabbitry.due")
"""The first words of the keys of messages: those of earlier versions, and those of this one."""
LONGEST: Final = 1 << _LEVELS
"""Seconds of the longest delay: four years."""


def level_name(level: int) -> str:
    """Return the name of the queue, and of its exchange, in which a message waits for 2 ** level seconds."""
    return f"{_NAME}.{1 << level}s"


EXCHANGES: Final = frozenset({LAST, *map(level_name, range(_LEVELS))})


def waiting(seconds: int, exchange: str = "") -> dict[str, str | int]:
    """Return the arguments of a queue that passes each message on after a time, to queues or exchanges by its keys.

    At-least-once dead-lettering exists for quorum queues alone, and asks for reject-publish (RabbitMQ's
    docs/quorum-queues, "At-least-once dead lettering").

    Args:
        seconds: The time.
        exchange: Where a message goes then; empty for the default exchange.
    """
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": seconds * 1000,
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def delayed(queues: list[str], message: Publication, delay: float) -> Publication:
    """Return the message that delivers another, which was not published yet, to queues after `delay` seconds.

    Args:
        queues: The queues, at least one.
        message: The message, with properties by name.
        delay: Seconds, rounded up to whole ones.

    Raises:
        UsageError: The delay is longer than LONGEST, or the message has a CC or BCC header.
    """
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # made by name; narrows the type
    if delay > LONGEST:
        raise UsageError(f"a delay of {delay:g} s is too long: {LONGEST} s (four years) is the longest")
    headers = dict(properties.headers or {})
    if given := next((name for name in (_COPIES, "BCC") if name in headers), None):
        raise UsageError(f"a message with a delay can't have a {given} header, which the delay needs: publish it twice")
    headers.pop("x-death", None)  # a queue that it names would not be entered again: brokers take that for a cycle
    headers |= {EXCHANGE: message.exchange, ROUTING_KEY: message.routing_key}
    rest = max(1, math.ceil(delay)) - 1  # the last queue keeps it for a second
    digits = ".".join(f"{rest:0{_LEVELS}b}")
    headers[_COPIES] = [f"{_WORDS[-1]}.{digits}"]
    first = level_name(rest.bit_length() - 1) if rest else LAST
    # An expiration would apply to each of the queues, and move the message on too early.
    properties = properties._replace(headers=headers, expiration=None)
    return Publication(first, queues[0], message.body, properties, also=tuple(queues[1:]))


async def declare(connection: Connection, declarer: Declarer) -> None:
    """Declare the queues and exchanges of delays. Raises AccessRefused if the user may not."""
    channel = await connection.channel()
    try:
        await declarer.exchange(channel, LAST, "topic", durable=True)
        await declarer.queue(channel, LAST, durable=True, arguments=waiting(1))
        await channel.bind_queue(LAST, LAST, f"{_NAME}.#")
        await declarer.exchange(channel, _UNBOUND, "fanout", durable=True)
        await channel.bind_queue(LAST, _UNBOUND)
        await declarer.exchange(channel, DUE, "direct", durable=True, arguments={"alternate-exchange": _UNBOUND})
        await declarer.queue(channel, DUE, durable=True, arguments=waiting(1, DUE))
        await channel.bind_queue(DUE, LAST, f"{_WORDS[-1]}.#")
        following = LAST
        for level in range(_LEVELS):
            name = level_name(level)
            digits_before = "*." * (_LEVELS - 1 - level)
            await declarer.exchange(channel, name, "topic", durable=True)
            await declarer.queue(channel, name, durable=True, arguments=waiting(1 << level, following))
            await asyncio.gather(
                *[channel.bind_exchange(following, name, f"{words}.{digits_before}0.#") for words in _WORDS],
                *[channel.bind_queue(name, name, f"{words}.{digits_before}1.#") for words in _WORDS],
            )
            following = name
    finally:
        await channel.close()


async def bind(connection: Connection, queue: str) -> None:
    """Bind the target of delayed messages, so that they need not wait in the queue of those without a target.

    Without the binding they come a second later: if the queue does not exist, or the user may not bind it.
    """
    with contextlib.suppress(AccessRefused, NotFound, ResourceLocked):
        async with await connection.channel() as channel:
            await channel.bind_queue(queue, DUE, queue)
