"""Set-up and clean-up of dependencies. An error in one names the dependency."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from rabbitry._errors import described
from rabbitry.flow.exceptions import DependencyFailed, Reject, Retry

if TYPE_CHECKING:
    from rabbitry.flow._plan import Provider
    from rabbitry.flow.context import Context
    from rabbitry.flow.message import Message

_AS_THEY_ARE: Final = (Reject, Retry, DependencyFailed)
"""Errors that decide the message's outcome themselves, and are not wrapped in DependencyFailed."""


class Given:
    """The values that dependencies may take: the instances made so far, by key, and the message that is handled."""

    def __init__(
        self, instances: Mapping[Hashable, object], message: Message | None = None, context: Context | None = None
    ) -> None:
        self.instances = dict(instances)
        self._message = message
        self.context = context

    def arguments(self, provider: Provider) -> dict[str, object]:
        """Return the arguments of a provider."""
        arguments = {name: self.instances[key] for name, key in provider.needs}
        arguments |= dict.fromkeys(provider.takes_message, self._message)
        return arguments | dict.fromkeys(provider.takes_context, self.context)


def set_up(providers: Sequence[Provider], given: Given, stack: ExitStack) -> None:
    """Make dependencies, and add their clean-ups to the stack. Raises DependencyFailed."""
    for provider in providers:
        try:
            made = provider.make(**given.arguments(provider))
            if provider.cleans_up:
                manager, made = made, made.__enter__()
                stack.push(_CleanUp(provider.name, manager))
        except Exception as error:
            raise _named(provider.name, "set-up", error) from error
        given.instances[provider.key] = made


async def set_up_async(providers: Sequence[Provider], given: Given, stack: AsyncExitStack) -> None:
    """Make dependencies as `set_up` does, some of them asynchronous. `def` providers run in the event loop too."""
    for provider in providers:
        try:
            made = provider.make(**given.arguments(provider))
            if not provider.is_async:
                if provider.cleans_up:
                    manager, made = made, made.__enter__()
                    stack.push(_CleanUp(provider.name, manager))
            elif provider.cleans_up:
                manager, made = made, await made.__aenter__()
                stack.push_async_exit(_AsyncCleanUp(provider.name, manager))
            else:
                made = await made
        except Exception as error:
            raise _named(provider.name, "set-up", error) from error
        given.instances[provider.key] = made


class _CleanUp:
    """Leaves a dependency's context manager, which sees the error of the handling but can't suppress it."""

    def __init__(self, name: str, manager: Any) -> None:
        self._name = name
        self._manager = manager

    def __enter__(self) -> None:
        """Do nothing: the manager was entered."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._manager.__exit__(kind, error, traceback)
        except Exception as failure:
            if failure is error:
                return
            raise _named(self._name, "clean-up", failure) from failure


class _AsyncCleanUp:
    """Leaves an asynchronous context manager, as `_CleanUp` does."""

    def __init__(self, name: str, manager: Any) -> None:
        self._name = name
        self._manager = manager

    async def __aenter__(self) -> None:
        """Do nothing: the manager was entered."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._manager.__aexit__(kind, error, traceback)
        except Exception as failure:
            if failure is error:
                return
            raise _named(self._name, "clean-up", failure) from failure


def _named(name: str, step: str, error: Exception) -> Exception:
    if isinstance(error, _AS_THEY_ARE):
        return error
    return DependencyFailed(f"dependency {name!r} failed in its {step}: {described(error)}")
