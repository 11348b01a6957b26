"""A delivery for scripts: settled from any thread, on the connection's I/O thread."""

import functools
import logging
from collections.abc import Callable

from rabbitry.amqp.client._processing import BlockingProcessing, Requeue
from rabbitry.amqp.client.consuming import Delivery
from rabbitry.amqp.client.io_thread import IOThread
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.exceptions import AlreadySettled

_log = logging.getLogger(__name__)


class BlockingDelivery:
    """A message that was delivered, or got; to be settled once by `ack`, `nack` or `reject`, from any thread."""

    __slots__ = ("_delivery", "_io", "_is_settled")

    def __init__(self, delivery: Delivery, io: IOThread) -> None:
        self._delivery = delivery
        self._io = io
        self._is_settled = False

    def __repr__(self) -> str:
        return repr(self._delivery)

    @property
    def body(self) -> bytes:
        """The message's body."""
        return self._delivery.body

    @property
    def properties(self) -> Properties:
        """The message's properties. Raises ProtocolViolation where they are malformed."""
        return self._delivery.properties

    @property
    def exchange(self) -> str:
        """The exchange that the message was published to."""
        return self._delivery.exchange

    @property
    def routing_key(self) -> str:
        """The routing key that the message was published with."""
        return self._delivery.routing_key

    @property
    def delivery_tag(self) -> int:
        """The delivery's number on its channel."""
        return self._delivery.delivery_tag

    @property
    def redelivered(self) -> bool:
        """Whether the message was delivered before."""
        return self._delivery.redelivered

    @property
    def is_lost(self) -> bool:
        """Whether the channel that brought it is gone, so that the broker delivers it again."""
        return self._delivery.is_lost

    @property
    def is_open(self) -> bool:
        """Whether this delivery can be settled: it needs an acknowledgement, has none yet, and its channel is open."""
        return not self._is_settled and self._delivery.is_open

    def ack(self, *, multiple: bool = False) -> None:
        """Acknowledge this delivery; with `multiple`, all before it on its channel too.

        Raises AlreadySettled where it was settled, or came over a channel or connection that is gone.
        """
        self._settle(functools.partial(self._delivery.ack, multiple=multiple))

    def nack(self, *, requeue: bool = True, multiple: bool = False) -> None:
        """Requeue this delivery, or have it dropped or dead-lettered. Raises as `ack` does."""
        self._settle(functools.partial(self._delivery.nack, requeue=requeue, multiple=multiple))

    def reject(self, *, requeue: bool = True) -> None:
        """Requeue this one delivery, or have it dropped or dead-lettered. Raises as `ack` does."""
        self._settle(functools.partial(self._delivery.reject, requeue=requeue))

    def process(self, *, requeue: Requeue = False, requeue_once: bool = False) -> BlockingProcessing:
        """Acknowledge this delivery at the end of a `with` block, or reject it where the block raises.

        The exception is passed on; KeyboardInterrupt always requeues the message. Arguments as for `Delivery.process`.
        """
        return BlockingProcessing(self, requeue, requeue_once)

    def _settle(self, settle: Callable[[], None]) -> None:
        if self._is_settled:
            raise AlreadySettled(f"delivery {self.delivery_tag} was settled before")
        self._delivery.check_open()
        self._is_settled = True
        self._io.post(functools.partial(_quietly, settle))


def _quietly(settle: Callable[[], None]) -> None:
    """Settle in the I/O thread. A channel that went since the caller's check delivers again what it brought."""
    try:
        settle()
    except AlreadySettled as error:
        _log.info("%s", error)
