"""Cancelling jobs: published to an app's workers, and kept on the broker for workers that start later."""

from __future__ import annotations

import time
from typing import Final

from rabbitry.amqp.client import Connection, Properties
from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.exceptions import NotFound, UsageError
from rabbitry.flow.message import Publication
from rabbitry.flow.stage import Argument

KEPT: Final = 24 * 3600.0
"""Seconds for which a cancellation holds."""
MOST: Final = 10_000
"""Cancellations of an app that are kept; the oldest ones are dropped first."""
_PATIENCE: Final = 20.0
"""Seconds that the broker may take to confirm one."""


def cancel_exchange(app: str) -> str:
    """Return the name of the exchange that cancellations of an app are published to."""
    return f"{app}.cancel"


def cancelled_queue(app: str) -> str:
    """Return the name of the queue in which cancellations of an app are kept."""
    return f"{app}.cancelled"


def kept_arguments() -> dict[str, Argument]:
    """Return the arguments of the queue of cancellations.

    Its single active consumer is a worker that reads all of it and returns it; others wait for their turn. A quorum
    queue would drop what was returned too often.
    """
    return {
        "x-queue-type": "classic",
        "x-single-active-consumer": True,
        "x-message-ttl": round(KEPT * 1000),
        "x-max-length": MOST,
        "x-overflow": "drop-head",
    }


def checked_id(id: str) -> str:
    """Return an id. Raises UsageError for one that no message can have."""
    if not id:
        raise UsageError("the id of a job is empty: pass the id that publish returned")
    encode_short(id)
    return id


def cancellation_of(app: str, id: str) -> Publication:
    """Return the message that cancels a job. Raises UsageError for an id that no message can have."""
    body = encode_short(checked_id(id))[1:]
    properties = Properties(type="Cancellation", delivery_mode=2, timestamp=int(time.time()), app_id=app)
    return Publication(cancel_exchange(app), "", body, properties)


async def cancel(connection: Connection, app: str, id: str) -> None:
    """Cancel a job of an app; see `Publisher.cancel`.

    Raises:
        UsageError: No worker or publisher of such an app with cancellable=True has connected here, or no message can
            have this id.
        PublishError: The broker did not take it.
    """
    message = cancellation_of(app, id)
    async with await connection.channel() as channel:
        try:
            await channel.declare_exchange(message.exchange, passive=True)
        except NotFound as error:
            raise UsageError(
                f"app {app!r} has no exchange {message.exchange!r} on this broker: its jobs can be cancelled once a "
                f"worker or publisher of App({app!r}, cancellable=True) has connected"
            ) from error
        receipt = await channel.send(
            message.body, exchange=message.exchange, properties=message.properties, timeout=_PATIENCE
        )
        await receipt
