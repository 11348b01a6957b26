"""A call of a handler that needs more than a message's value: dependencies, middleware, a context, batches, yields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing, closing
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from rabbitry.flow.context import Context
from rabbitry.flow.worker._dependencies import Given, set_up, set_up_async
from rabbitry.flow.worker._executors.results import Body, succeeded, unknown_fields, yielded
from rabbitry.flow.worker._job import ABANDONED, Result

if TYPE_CHECKING:
    from rabbitry.flow.context import Publishing
    from rabbitry.flow.message import Message
    from rabbitry.flow.middleware import Middleware
    from rabbitry.flow.stage import Stage

Put: TypeAlias = Callable[[Result | None], bool]
"""Publishes a value that a handler yielded (None: no destination), and waits while too much is unconfirmed.

Returns False if the handler has to be closed."""
PutAsync: TypeAlias = Callable[[Result | None], Awaitable[bool]]
_NO_INSTANCES: Final[Mapping[Hashable, object]] = {}


class Input(Protocol):
    """The part of a call's messages that an invoker uses."""

    is_cancelled: bool

    @property
    def body(self) -> Body:
        """The body of the message, or those of all of a batch."""

    @property
    def is_stale(self) -> bool:
        """Whether it can't be settled any more, and is delivered again."""

    def message(self) -> Any:
        """Read the metadata of the message (`Message`), or of all of a batch (`list[Message]`)."""


class Invoker:
    """Calls the handler of a stage, with its dependencies and the middleware around it.

    instances: the dependencies that live as long as the worker, or the process. publishing: for contexts; None where
    handlers have none.
    """

    __slots__ = ("_of_message", "instances", "is_plain", "middlewares", "publishing", "stage")

    def __init__(
        self,
        stage: Stage,
        *,
        middlewares: tuple[Middleware, ...] = (),
        instances: Mapping[Hashable, object] = _NO_INSTANCES,
        publishing: Publishing | None = None,
    ) -> None:
        self.stage = stage
        self.middlewares = tuple(each for each in middlewares if each.is_around(stage))
        self.instances = instances
        self.publishing = publishing
        self.is_plain = stage.is_plain and not self.middlewares
        self._of_message = stage.signature.plan.of_scope("message")

    def call(self, work: Input, body: Body, arguments: dict[str, object], places: list[int] | None, put: Put) -> Result:
        """Call a `def` handler. Raises its errors, and those of dependencies and middleware.

        Args:
            work: The input.
            body: Its body, or those of a batch.
            arguments: The handler's arguments but for context and dependencies.
            places: See `extra_of`.
            put: Publishes what the handler yields.
        """
        ended = _Ended()
        call: Callable[[], object] = partial(self._handle, work, body, arguments, places, put, ended)
        try:
            if self.middlewares:
                message = work.message()
                for middleware in reversed(self.middlewares):
                    call = partial(middleware.function, message, call)
            returned = call()
        except _Abandoned:
            return ABANDONED
        return ABANDONED if ended.is_abandoned else succeeded(self.stage, body, returned, places)

    async def call_async(
        self, work: Input, body: Body, arguments: dict[str, object], places: list[int] | None, put: PutAsync
    ) -> Result:
        """Call an `async def` handler; see `call`."""
        ended = _Ended()
        call: Callable[[], Awaitable[object]] = partial(self._handle_async, work, body, arguments, places, put, ended)
        try:
            if self.middlewares:
                message = work.message()
                for middleware in reversed(self.middlewares):
                    call = partial(middleware.function, message, call)
            returned = await call()
        except _Abandoned:
            return ABANDONED
        return ABANDONED if ended.is_abandoned else succeeded(self.stage, body, returned, places)

    def _handle(
        self,
        work: Input,
        body: Body,
        arguments: dict[str, object],
        places: list[int] | None,
        put: Put,
        ended: _Ended,
    ) -> object:
        """Make the dependencies, run the handler, and clean up, before anything that it returned is published."""
        given = self._given(work)
        stack = ExitStack()
        try:
            set_up(self._of_message, given, stack)
            returned = self.stage.handler(**self._all_arguments(arguments, given, work))
            if self.stage.yields and isinstance(returned, GeneratorType):
                self._pass_on(body, returned, places, put, ended)
                returned = None
        except BaseException as error:
            stack.__exit__(type(error), error, error.__traceback__)  # clean-ups can't suppress it
            raise
        stack.close()
        return returned

    async def _handle_async(
        self,
        work: Input,
        body: Body,
        arguments: dict[str, object],
        places: list[int] | None,
        put: PutAsync,
        ended: _Ended,
    ) -> object:
        """Do as `_handle` does."""
        given = self._given(work)
        stack = AsyncExitStack()
        try:
            await set_up_async(self._of_message, given, stack)
            returned = self.stage.handler(**self._all_arguments(arguments, given, work))
            if self.stage.yields and isinstance(returned, AsyncGeneratorType):
                await self._pass_on_async(body, returned, places, put, ended)
                returned = None
            else:
                returned = await returned
        except BaseException as error:
            await stack.__aexit__(type(error), error, error.__traceback__)
            raise
        await stack.aclose()
        return returned

    def _pass_on(self, body: Body, generator: Any, places: list[int] | None, put: Put, ended: _Ended) -> None:
        unknown = unknown_fields(self.stage, body)
        with closing(generator) as values:
            for value in values:
                is_open = put(yielded(self.stage, value, unknown, places))
                del value  # it may be confirmed and gone before there is a next one
                if not is_open:
                    ended.is_abandoned = True
                    raise _Abandoned

    async def _pass_on_async(
        self, body: Body, generator: Any, places: list[int] | None, put: PutAsync, ended: _Ended
    ) -> None:
        unknown = unknown_fields(self.stage, body)
        async with aclosing(generator) as values:
            async for value in values:
                is_open = await put(yielded(self.stage, value, unknown, places))
                del value  # it may be confirmed and gone before there is a next one
                if not is_open:
                    ended.is_abandoned = True
                    raise _Abandoned

    def _given(self, work: Input) -> Given:
        signature = self.stage.signature
        providers = self._of_message
        asks_context = signature.context is not None or any(provider.takes_context for provider in providers)
        asks_message = any(provider.takes_message for provider in providers)
        context: Context | None = None
        if asks_context and self.publishing is not None:
            context = Context(work, self.publishing)
        message: Message | None = work.message() if asks_message else None
        return Given(self.instances, message, context)

    def _all_arguments(self, arguments: dict[str, object], given: Given, work: Input) -> dict[str, object]:
        signature = self.stage.signature
        if signature.context is not None:
            arguments = arguments | {signature.context: given.context}
        return arguments | {name: given.instances[key] for name, key in signature.plan.parameters}


class _Ended:
    """Whether a generator was closed before its end, which a middleware can't hide."""

    def __init__(self) -> None:
        self.is_abandoned = False


class _Abandoned(BaseException):
    """A generator had to be closed before its end. Dependencies see it, so that what they began is undone."""
