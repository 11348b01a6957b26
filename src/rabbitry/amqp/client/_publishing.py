"""Publishing over one channel: its window of unconfirmed messages, and its confirms or transactions."""

from __future__ import annotations

from rabbitry.amqp.client._channel_link import ChannelLink
from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._owner import check_loop
from rabbitry.amqp.client._receipts import raise_all
from rabbitry.amqp.client._window import PublishWindow
from rabbitry.amqp.protocol.methods import ConfirmSelect
from rabbitry.amqp.protocol.states import ChannelState
from rabbitry.exceptions import UsageError


class Publishing:
    """The window of one channel, and its publishing mode."""

    def __init__(self, line: ChannelLink, *, confirms: bool) -> None:
        self.window: PublishWindow = PublishWindow(line.loop, line.session.failures)
        self.window.confirms = confirms
        self.in_transaction = False
        self.is_transactional: bool = False
        """Whether the channel has had a transaction: AMQP can't take a channel out of transactional mode."""
        self._line = line
        self._session = line.session
        self._loop = line.loop
        self._confirming = False
        """Whether confirms were requested from the broker, or will be once the channel is open."""

    def begin(self, timeout: float | None) -> float:
        """Prepare to publish a message, and return its timeout in seconds.

        Raises UsageError in another event loop, and outside a transaction on a channel that has had one.
        """
        check_loop(self._loop, self._session)
        if not self._confirming:
            self._ensure_confirms()
        return self._session.publish_timeout if timeout is None else timeout

    def _ensure_confirms(self) -> None:
        if not self.window.confirms:
            if self.is_transactional and not self.in_transaction:
                raise UsageError(
                    "can't publish outside a transaction on a channel that has had one: publish within "
                    "`channel.transaction()`, or on another channel"
                )
            return
        self._confirming = True
        link = self._line.link
        if link is not None and link.core.channel_state(self._line.number) is ChannelState.OPEN:
            self._line.send(ConfirmSelect(nowait=True))  # otherwise sent when the channel is opened or restored

    async def wait_for_confirms(self, timeout: float | None) -> None:
        """Wait until everything sent before is confirmed. Raises as `Channel.wait_for_confirms`."""
        check_loop(self._loop, self._session)
        await self.window.wait_idle(timeout)
        raise_all(self._session.failures.take(self.window))

    def raise_unseen(self) -> None:
        """Raise the failures that nobody has retrieved."""
        raise_all(self._session.failures.take_unseen(self.window))

    # -- its link --------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Reset the mode of a channel that was closed, as the broker has."""
        self._confirming = False
        self.is_transactional = self.in_transaction

    async def restore_mode(self, timeout: float | None) -> None:
        """Set the publishing mode of a channel that was just opened."""
        if self.is_transactional:
            from rabbitry.amqp.protocol.methods import TxSelect, TxSelectOk  # loaded with the first transaction

            await self._line.request_now(TxSelect(), TxSelectOk, timeout)
        if self._confirming:
            self._line.send(ConfirmSelect(nowait=True))

    def attach(self, link: Link) -> None:
        """Publish over `link` from now on, and resend the unconfirmed messages."""
        session = self._session
        self.window.attach(
            self._line.number, link.core.frame_limit, self._write, self._flush, self._can_write,
            session.topology.current, hold=session.resending.is_careful,
        )  # fmt: skip

    def _write(self, data: bytes) -> None:
        link = self._line.link
        if link is not None:
            link.driver.write(data)
            if link.is_held:
                link.read()

    def _flush(self) -> None:
        self._line.settlements.flush()  # acks of this loop iteration go with it
        link = self._line.link
        if link is not None:
            link.driver.flush()

    def _can_write(self) -> bool:
        link = self._line.link
        return link is not None and link.driver.can_write and self._session.blocked is None
