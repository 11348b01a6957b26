"""A channel's part of a link: its number, its pending requests, and its unsettled deliveries.

All of that ends with the link. A channel outlives its link: recovery attaches it to the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._receipts import fail
from rabbitry.amqp.client._session import Session
from rabbitry.amqp.client._settlements import Delivery, Settlements
from rabbitry.amqp.protocol.methods import BasicCancelOk, BasicConsumeOk, ChannelCloseOk, Method
from rabbitry.exceptions import ChannelClosed, Closed, ConnectionClosed, RequestTimeout, UsageError

if TYPE_CHECKING:
    from rabbitry.amqp.client._link import ChannelHandler

Answer: TypeAlias = Method | Delivery
"""An answer of the broker; the answer to basic.get is a delivery."""
_REQUEST_ATTEMPTS: Final = 3
_FROM_THE_QUEUE: Final = ((BasicConsumeOk,), (BasicCancelOk,))
_T = TypeVar("_T")


class Request:
    """A sent method, the types of its answer, and a callback that runs even if nobody waits any more."""

    __slots__ = ("future", "kinds", "then")

    def __init__(
        self, kinds: tuple[type, ...], future: asyncio.Future[Answer], then: Callable[[Answer], None] | None
    ) -> None:
        self.kinds: tuple[type, ...] = kinds
        self.future: asyncio.Future[Answer] = future
        self.then: Callable[[Answer], None] | None = then


class ChannelLink:
    """One channel's part of the current link."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.loop: asyncio.AbstractEventLoop = session.loop
        self.link: Link | None = None
        self.number: int = 0
        self.closed: Closed | None = ChannelClosed(0, "the channel was never opened")
        """Why the channel is closed; None while it is open, with or without a link."""
        self.settlements: Settlements = Settlements(self.loop, 0, self._no_write, self.send)
        self._requests: deque[Request] = deque()

    # -- life cycle --------------------------------------------------------------------------------------

    def attach(self, link: Link, handler: ChannelHandler) -> None:
        """Take a free channel number of `link`; `handler` gets its events. Raises ConnectionClosed, UsageError."""
        if not link.is_open:
            raise ConnectionClosed(0, "the connection was lost before the channel was open")
        number = link.free_channel_number()
        if number is None:
            raise UsageError(f"all {link.core.channel_max} channels of this connection are in use")
        self.number = number
        self.link = link
        link.channels[number] = handler
        self._requests.clear()
        self.settlements = Settlements(self.loop, number, link.driver.write, self.send)
        self.closed = None

    def lose(self, error: Closed) -> None:
        """Detach from the link: its requests fail, and its deliveries can no longer be settled."""
        self.link = None
        self.settlements.lost = error
        requests, self._requests = self._requests, deque()
        for request in requests:
            fail(request.future, error.fresh())

    def abandon(self, error: Closed) -> None:
        """Refuse all use in a child process, without waking waiters: they belong to the parent."""
        self.closed = error
        self.link = None
        self.settlements.lost = error

    def expect_close(self, link: Link, handler: ChannelHandler) -> asyncio.Future[Answer]:
        """Keep the number of a channel that was given up here until the broker has closed it too."""
        self.link = link
        return self._expect((ChannelCloseOk,), lambda _: self.free_number(handler))

    def free_number(self, handler: ChannelHandler) -> None:
        """Release the number: both sides have closed the channel."""
        link = self.link or self.session.link
        self.link = None
        if link is not None and link.channels.get(self.number) is handler:
            del link.channels[self.number]

    @property
    def is_usable(self) -> bool:
        """Whether there is a link that methods can be sent over."""
        return self.link is not None and self.link.is_open

    def check_open(self) -> None:
        """Raise the reason why the channel is closed, unless it is open."""
        if self.closed is not None:
            raise self.closed.fresh()

    def _no_write(self, data: bytes) -> None:
        raise self.closed.fresh() if self.closed else UsageError("the channel was never opened")

    # -- requests --------------------------------------------------------------------------------------

    def send(self, method: Method) -> None:
        """Send a method that has no answer. Raises ChannelClosed, ConnectionClosed."""
        if self.closed is not None or self.link is None:
            raise self.closed.fresh() if self.closed else ConnectionClosed(0, "the connection is lost and recovering")
        if not self.link.is_open:
            raise ConnectionClosed(0, "the connection is closing")
        self.link.send(self.number, method)

    def ask(
        self, method: Method, kinds: tuple[type, ...], then: Callable[[Answer], None] | None = None
    ) -> asyncio.Future[Answer]:
        """Send a method and return the future of its answer, which is one of `kinds`.

        then: called with the answer before any waiter gets it, and also if nobody waits any more.
        """
        self.settlements.flush()
        self.send(method)
        return self._expect(kinds, then)

    def _expect(self, kinds: tuple[type, ...], then: Callable[[Answer], None] | None) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = self.loop.create_future()
        self._requests.append(Request(kinds, future, then))
        if self.link is not None:
            self.link.hold_or_read()
        return future

    async def until_usable(self, timeout: float | None) -> None:
        """Wait while the connection recovers. Raises ConnectionClosed, RequestTimeout."""
        if self.closed is None:
            await self.session.usable_link(timeout)
        else:
            self.session.check_loop()

    async def request(self, method: Method, kind: type[_T], timeout: float | None = None) -> _T:
        """Send a method and wait for its answer; send it again after a recovery.

        Only for methods that can safely be repeated. A method over which the connection is lost several times may be
        the cause: then the last loss is raised.
        """
        attempt = 1
        while True:
            await self.until_usable(timeout)
            try:
                return await self.request_now(method, kind, timeout)
            except ConnectionClosed:
                if self.closed is not None or attempt == _REQUEST_ATTEMPTS:
                    raise
                attempt += 1

    async def request_now(self, method: Method, kind: type[_T], timeout: float | None = None) -> _T:
        """Send a method and wait for its answer, even while the connection recovers; for recovery itself."""
        answer = await self.until_answered(self.ask(method, (kind,)), type(method).__name__, timeout)
        assert isinstance(answer, kind)  # noqa: S101 # `find` lets nothing else through; narrows the type
        return answer

    async def until_answered(self, future: asyncio.Future[_T], what: str, timeout: float | None) -> _T:
        """Wait for the answer to `what`. Raises RequestTimeout after `timeout` seconds (None: the connection's)."""
        seconds = self.session.request_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise RequestTimeout(f"the broker did not answer {what} within {seconds} s") from error

    # -- answers ---------------------------------------------------------------------------------------

    @property
    def awaits_answer(self) -> bool:
        """Whether an answer is outstanding."""
        return bool(self._requests)

    def find(self, kind: type) -> Request | None:
        """Return the first request that expects an answer of this type.

        An answer sent by RabbitMQ's queue process, not its channel process, may arrive after the answers to later
        requests.
        """
        for request in self._requests:
            if issubclass(kind, request.kinds):
                return request
            if request.kinds not in _FROM_THE_QUEUE:
                break
        return None

    def answer(self, request: Request, answer: Answer) -> bool:
        """Hand over the answer to a request, and return whether anybody waits for it."""
        self._requests.remove(request)
        if request.then is not None:
            request.then(answer)
        if request.future.done():
            return False
        request.future.set_result(answer)
        return True
