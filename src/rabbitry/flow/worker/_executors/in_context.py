"""Awaiting a coroutine in a context of its own."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import Context

from rabbitry.flow.worker._job import Result


class InContext:
    """Awaits a coroutine in its own context without creating a task, which would cost every message time.

    Each step of the coroutine runs within `context`; the futures that it waits for go to the task that awaits this.
    """

    def __init__(self, context: Context, coroutine: Coroutine[object, object, Result]) -> None:
        self._context = context
        self._coroutine = coroutine

    def __await__(self) -> Generator[object, object, Result]:
        run, coroutine = self._context.run, self._coroutine
        value: object = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = run(coroutine.send, value) if error is None else run(coroutine.throw, error)
            except StopIteration as end:
                result: Result = end.value
                return result
            try:
                value, error = (yield waits_for), None
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine
                error = thrown
