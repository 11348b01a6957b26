"""Declaring exchanges and queues that other programs may have declared with other flags."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from rabbitry.amqp.client import Channel
from rabbitry.exceptions import PreconditionFailed, ResourceLocked
from rabbitry.flow.exceptions import TopologyMismatch

_OTHER_TYPE: Final = re.compile(r"inequivalent arg 'type' .* but current is '([^']{1,64})'")
"""RabbitMQ's words for an exchange of another type, the only place where AMQP tells the type of an exchange."""
_NOW_DURABLE: Final = re.compile(r"inequivalent arg 'durable' .*: received 'false' but current is 'true'")
_REFUSES_OTHERS: Final = (
    "; programs that declare it not durable are refused: delete it, or take a broker or a data folder without it"
)
HOW_TO_REPLACE: Final = "`rabbitry topology plan MODULE:APP` shows how it is replaced without losing a message"
_REMEMBERED: Final = 1000
"""Differences that are logged, once each. More come only from names that are made up without end."""

_logger = logging.getLogger(__name__)


class Declarer:
    """Declares exchanges and queues; one that exists with other flags is used as it is.

    Each difference is logged once as a warning, however often the same thing is declared again after a reconnect: one
    declarer serves all connections of a program, one after the other.
    """

    def __init__(self, *, strict: bool = False) -> None:
        """Create a declarer.

        Args:
            strict: Raise PreconditionFailed if a queue or exchange exists with other flags.
        """
        self._strict = strict
        self._said: set[str] = set()
        self.types: dict[str, str] = {}
        """The types of exchanges that exist with another one than was asked for, by their names."""

    async def exchange(
        self,
        channel: Channel,
        name: str,
        type_: str,
        *,
        durable: bool,
        auto_delete: bool = False,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        """Declare an exchange. The channel is open again afterwards if the broker closed it.

        Raises:
            PreconditionFailed: it exists with another type or flags, and the declarer is strict.
            AccessRefused: this user may not declare it.
        """
        try:
            await channel.declare_exchange(
                name, type_, durable=durable, auto_delete=auto_delete, arguments=dict(arguments or {})
            )
        except PreconditionFailed as error:
            found = _OTHER_TYPE.search(error.reply_text)
            if found is not None:
                self.types[name] = found[1]
            await self._use(channel, f"exchange '{name}'", error)
        else:
            self.types.pop(name, None)

    async def queue(
        self,
        channel: Channel,
        name: str,
        *,
        durable: bool,
        auto_delete: bool = False,
        arguments: Mapping[str, str | int | float | bool] | None = None,
        required_by: str = "",
    ) -> None:
        """Declare a queue; see `exchange`.

        Args:
            channel: An open channel.
            name: The queue's name.
            durable: Whether the queue survives a restart of the broker.
            auto_delete: Whether the queue goes with its last consumer.
            arguments: The queue's arguments.
            required_by: What can't use a queue that exists with other flags; TopologyMismatch is raised then.
        """
        try:
            await channel.declare_queue(name, durable=durable, auto_delete=auto_delete, arguments=dict(arguments or {}))
        except PreconditionFailed as error:
            if required_by and not self._strict:
                raise TopologyMismatch(
                    f"queue '{name}' exists with other flags and can't be used by {required_by} ({error.reply_text}); "
                    f"{HOW_TO_REPLACE}"
                ) from error
            await self._use(channel, f"queue '{name}'", error)

    async def exclusive_queue(
        self, channel: Channel, name: str, arguments: Mapping[str, str | int] | None = None
    ) -> str:
        """Declare an exclusive queue and return its name: one of the broker's if `name` can't be had (405).

        The channel is open again afterwards if the broker closed it. arguments: the queue's, as in `declare_queue`.

        Raises:
            AccessRefused: The user lacks a permission.
        """
        try:
            return (await channel.declare_queue(name, exclusive=True, arguments=arguments)).name
        except ResourceLocked:
            self._say(
                f"queue '{name}' can't be exclusive to this connection: another one holds it, or declared it with "
                "other flags; using a queue named by the broker instead"
            )
            await channel.open()
            return (await channel.declare_queue("", exclusive=True, arguments=arguments)).name

    async def _use(self, channel: Channel, what: str, error: PreconditionFailed) -> None:
        """Log that an object is used as it is, and reopen the channel that the broker closed for it (406).

        AMQP 0-9-1, exchange.declare and queue.declare, rule "equivalent".
        """
        if self._strict:
            raise error
        advice = _REFUSES_OTHERS if _NOW_DURABLE.search(error.reply_text) else ""
        self._say(f"{what} exists with other flags and is used as it is ({error.reply_text}){advice}")
        await channel.open()

    def _say(self, text: str) -> None:
        if text not in self._said and len(self._said) < _REMEMBERED:
            self._said.add(text)
            _logger.warning("%s", text)
