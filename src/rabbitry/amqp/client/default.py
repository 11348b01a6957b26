"""The default broker, for a program that gives no URL: that of the worker or test that runs its code, if any.

A worker runs its handlers, and a test harness its block, in a context whose broker is `current`. `entered` does the
same for a whole process. Elsewhere the environment decides (`rabbitry.amqp.client.url.environment_url`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from rabbitry.amqp.client.url import BrokerURL, environment_url, parse_url

current: Final[ContextVar[BrokerURL | None]] = ContextVar("rabbitry_broker", default=None)
"""The broker of this context."""
_entered: Final[list[BrokerURL]] = []


@contextmanager
def entered(url: BrokerURL) -> Iterator[None]:
    """Make `url` the broker of this context, and of all code of this process whose context has none.

    A thread begins with an empty context, so the context variable alone would not reach the threads that a test starts.
    """
    before = current.get()
    current.set(url)
    _entered.append(url)
    try:
        yield
    finally:
        _entered.remove(url)
        # Not `reset`: a fixture may be left in another context than the one it was entered in.
        if current.get() is url:
            current.set(before)


def default_url() -> BrokerURL:
    """Return the default broker. Raises as `environment_url` does."""
    here = current.get() or (_entered[-1] if _entered else None)
    return here if here is not None else parse_url(environment_url())
