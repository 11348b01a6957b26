"""Messages of an exchange as they pass: the topic `raw`, for which a page names an exchange and a binding key.

Each subscription has a connection of its own, with an exclusive queue from which the broker drops the oldest. It
therefore holds up nobody, and goes when the page goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rabbitry.amqp.client import Delivery, Properties, connect
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps import Role
from rabbitry.exceptions import ProtocolViolation, RabbitryError, UsageError
from rabbitry.telemetry import Masking
from rabbitry.web.feed.topics import Params, Part, Subscription, Topic
from rabbitry.web.masking import shown_body

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL

MOST: Final = 8
"""Subscriptions at once, of all pages."""
A_SECOND: Final = 10
"""Messages a second that are shown; the broker drops the others from the queue."""
SHOWN: Final = 50
"""The newest messages that a page has."""
LONGEST: Final = 20_000
"""Bytes of a body that are shown."""
_BOUNDS: Final[dict[str, FieldValue]] = {
    "x-max-length": 20,
    "x-max-length-bytes": 4_000_000,
    "x-overflow": "drop-head",
    "x-expires": 60_000,
}
_LONGEST_NAME: Final = 255
_DEEPEST: Final = 32
"""Levels of a table that are shown."""

_logger = logging.getLogger(__name__)


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exchange and the binding key that a page watches."""

    exchange: str
    key: str = "#"


class RawTopic(Topic):
    """The topic. Its value has `state` (connecting, live, failed), `reason`, `seen` and `messages`, the newest first.

    Args:
        login: The broker's URL.
        masking: What is masked in messages.
    """

    role = Role.OPERATOR

    def __init__(self, login: BrokerURL, masking: Masking) -> None:
        super().__init__()
        self._login = login
        self._masking = masking
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self.ending: set[asyncio.Task[None]] = set()

    def subscribe(self, params: Params, bell: Callable[[], None]) -> Subscription:
        """See `Topic.subscribe`."""
        if len(self._tasks) >= MOST:
            raise UsageError(f"{MOST} pages already watch raw messages: close one of them")
        subscription = super().subscribe(params, bell)
        assert isinstance(subscription, Watch)  # noqa: S101 # of `_subscription`; narrows the type
        self._tasks[subscription] = asyncio.create_task(subscription.run(self._login, bell), name="watched exchange")
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """See `Topic.unsubscribe`."""
        super().unsubscribe(subscription)
        task = self._tasks.pop(subscription)
        task.cancel()
        self.ending.add(task)
        task.add_done_callback(self.ending.discard)

    def _subscription(self, params: Params) -> Subscription:
        try:
            which = msgspec.convert(params, Which)
        except msgspec.ValidationError as error:
            raise UsageError(f"parameters of raw messages: {error}") from error
        if not which.exchange:
            raise UsageError("nothing can be bound to the default exchange: look at the messages of a queue instead")
        if max(len(which.exchange.encode()), len(which.key.encode())) > _LONGEST_NAME:
            raise UsageError(f"an exchange's name and a key have at most {_LONGEST_NAME} bytes")
        return Watch(which, self._masking)


class Watch(Subscription):
    """One page's view of an exchange.

    Args:
        which: The exchange and the binding key.
        masking: What is masked.
    """

    def __init__(self, which: Which, masking: Masking) -> None:
        self._which = which
        self._masking = masking
        self._value: dict[str, Any] = {"state": "connecting", "reason": "", "seen": 0}
        self._messages: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self._is_new = True
        self._is_first = True

    def take(self) -> Part | None:
        """Return the whole value if something changed."""
        if not self._is_new:
            return None
        self._is_new = False
        value = {**self._value, "messages": [*self._messages]}
        if self._is_first:
            self._is_first = False
            return {"value": value, "at": time.time()}
        return {"set": value, "at": time.time()}

    async def run(self, login: BrokerURL, bell: Callable[[], None]) -> None:
        """Consume until cancelled, or until the broker or the connection ends it."""
        try:
            async with connect(login, name="rabbitry web raw", recover=False, log_level=logging.DEBUG) as connection:
                channel = await connection.channel(prefetch=1)
                queue = (await channel.declare_queue("", exclusive=True, auto_delete=True, arguments=_BOUNDS)).name
                await channel.bind_queue(queue, self._which.exchange, self._which.key)
                async with channel.consume(queue) as deliveries:
                    self._tell(bell, state="live")
                    async for delivery in deliveries:
                        delivery.ack()
                        self._messages.appendleft(shown(delivery, time.time(), self._masking))
                        self._tell(bell, seen=self._value["seen"] + 1)
                        await asyncio.sleep(1 / A_SECOND)
            self._tell(bell, state="failed", reason="the broker ended the consumer: watch again")
        except RabbitryError as error:
            self._tell(bell, state="failed", reason=str(error))
        except Exception:
            _logger.exception("an exchange can't be watched")
            self._tell(bell, state="failed", reason="internal error: see the dashboard's log")

    def _tell(self, bell: Callable[[], None], **changed: object) -> None:
        self._value |= changed
        self._is_new = True
        bell()


def shown(delivery: Delivery, at: float, masking: Masking) -> dict[str, Any]:
    """Return a message as pages get it, with secrets masked by the names of their fields."""
    try:
        properties = delivery.properties
    except ProtocolViolation:
        properties = Properties()
    told = {name: _plain(value) for name, value in properties._asdict().items() if value is not None}
    return {
        "at": at,
        "exchange": delivery.exchange.encode(errors="replace").decode(),
        "routing_key": delivery.routing_key.encode(errors="replace").decode(),
        "redelivered": delivery.redelivered,
        "properties": masking.value(told),
        **shown_body(delivery.body[:LONGEST], masking)._asdict(),
        "payload_encoding": "base64",
        "payload_bytes": len(delivery.body),
    }


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value of a table as JSON has it."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, depth + 1) for one in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
