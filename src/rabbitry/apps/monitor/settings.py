"""Settings of contract `system_info`'s two programs, from the environment and `.env`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rabbitry.apps import settings
from rabbitry.apps.monitor.names import CONSUMER_QUEUE, SYSTEM_INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(settings.Settings):
    """The broker and its names, and where the program serves HTTP."""

    exchange: str = SYSTEM_INFO.name
    queue: str = CONSUMER_QUEUE


def from_environment(
    found: Mapping[str, str],
    *,
    default_port: int,
    broker: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> Settings:
    """Return the settings of what `variables` found; the other arguments go before it if they are not None.

    Raises:
        UsageError: A value makes no sense. The text names its key.
    """
    served = settings.from_environment(found, default_port=default_port, broker=broker, host=host, port=port)
    return Settings(
        broker=served.broker,
        exchange=found.get("EXCHANGE_NAME", SYSTEM_INFO.name),
        queue=found.get("QUEUE_NAME", CONSUMER_QUEUE),
        host=served.host,
        port=served.port,
        password=served.password,
    )
