"""Redis as a store by URL: scripts, each of which Redis runs alone. The library comes with the extra `redis`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from rabbitry.exceptions import UsageError
from rabbitry.flow.exceptions import StoreError

_SECONDS: Final = 30.0
"""Seconds that Redis has for an answer."""
_SCHEMES: Final = ("redis", "rediss", "unix")


def is_redis(url: str) -> bool:
    """Return whether a URL is one of Redis."""
    return url.partition("://")[0] in _SCHEMES


class Scripts:
    """A connection to Redis that runs scripts. Used from any thread.

    Args:
        url: `redis://HOST:PORT/NUMBER`, or `rediss://…`.
        what: What is kept there, for errors, such as "a join's store".
        decodes: Whether answers are text, and not bytes.

    Raises:
        UsageError: The URL is malformed.
        StoreError: Redis does not answer.
    """

    def __init__(self, url: str, what: str, *, decodes: bool) -> None:
        # Not imported by name: its annotations join the answers of its two clients, of no use to a type checker.
        self._redis: Any = importlib.import_module("redis")
        parsed = urlsplit(url)
        self._shown = f"{what} {parsed.scheme}://{parsed.netloc.rpartition('@')[2]}{parsed.path}"
        try:
            self._client: Any = self._redis.Redis.from_url(
                url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, decode_responses=decodes
            )
        except ValueError as error:
            raise UsageError(f"{self._shown} is no URL of Redis: {error}") from error
        with self._errors():
            self._client.ping()

    def script(self, text: str) -> Any:
        """Return a function that runs a script with `keys` and `args`. Raises StoreError when it is called."""
        script = self._client.register_script(text)

        def run(keys: list[str], args: list[object]) -> Any:
            with self._errors():
                return script(keys=keys, args=args)

        return run

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._redis.RedisError as error:
            raise StoreError(f"{self._shown} does not answer: {str(error).partition(chr(10))[0]}") from error


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1000)
