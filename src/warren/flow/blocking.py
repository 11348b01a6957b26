"""A publisher for scripts without an event loop: the asyncio one, on an I/O thread."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from warren.flow._io import IOThread
from warren.flow.publisher import Publisher


class BlockingPublisher:
    """Publishes values to an app's stages. Made by `App.publisher_blocking`; a context manager. For any thread."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._io = IOThread(f"{publisher.app.name} publisher I/O")

    def __enter__(self) -> Self:
        """Connect and declare. Raises as `Publisher` does."""
        self._io.start()
        try:
            self._io.submit(self._publisher.__aenter__()).result()
        except BaseException:
            self._io.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._io.submit(self._publisher.__aexit__(kind, error, traceback)).result()
        finally:
            self._io.stop()

    def publish(self, value: object, *, key: str) -> str:
        """Publish a value and return the message's id once it is confirmed. Raises as `Publisher.publish` does."""
        return self._io.submit(self._publisher.publish(value, key=key)).result()
