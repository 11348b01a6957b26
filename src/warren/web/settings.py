"""The dashboard's settings, from the environment and `.env` (contract `system_info`)."""

from __future__ import annotations

import io
import ipaddress
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from dotenv import dotenv_values

from warren.exceptions import UsageError

log = logging.getLogger("warren.web")

KEYS = frozenset(
    {
        "RABBITMQ_HOST",
        "RABBITMQ_PORT",
        "RABBITMQ_USER",
        "RABBITMQ_PASSWORD",
        "RABBITMQ_VHOST",
        "EXCHANGE_NAME",
        "QUEUE_NAME",
        "APP_HOST",
        "APP_PORT",
        "APP_PASSWORD",
        "WARREN_BROKER",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the samples come from, and where the page is served."""

    broker: str = field(default="amqp://guest:guest@127.0.0.1:5672/", repr=False)
    exchange: str = "system_info"
    queue: str = "Consumer"
    host: str = "127.0.0.1"
    port: int = 8003
    password: str | None = field(default=None, repr=False)
    """Asked for by the page where it is set; needed for a `host` that is not this machine alone."""

    def __post_init__(self) -> None:
        if self.password is None and not is_loopback(self.host):
            raise UsageError(
                f"APP_HOST {self.host} can be reached from other machines, which needs a password: "
                "set APP_PASSWORD in the environment or in .env"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def from_environment(
    env_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    broker: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> Settings:
    """What was said, by precedence: the arguments, the environment, `env_file`, the defaults.

    `env_file` is `.env` in the working directory where it is None, and may then be missing. `WARREN_BROKER`
    goes before the RABBITMQ_… variables of the same place.

    Raises:
        UsageError: the file can't be read, or a value makes no sense. The text names file and key.
    """
    found = _file(env_file)
    process = os.environ if environment is None else environment
    set_there = {key: process[key] for key in KEYS if process.get(key)}
    if any(key.startswith("RABBITMQ_") for key in set_there):
        found.pop("WARREN_BROKER", None)
    found |= set_there
    defaults = Settings()
    return Settings(
        broker=broker or found.get("WARREN_BROKER") or _url(found),
        exchange=found.get("EXCHANGE_NAME", defaults.exchange),
        queue=found.get("QUEUE_NAME", defaults.queue),
        host=host or found.get("APP_HOST", defaults.host),
        port=_port(found, "APP_PORT", defaults.port) if port is None else port,
        password=found.get("APP_PASSWORD"),
    )


def _file(env_file: Path | None) -> dict[str, str]:
    path = env_file or Path(".env")
    if env_file is None and not path.exists():
        return {}
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error
    found: dict[str, str] = {}
    for key, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        if value is None:
            raise UsageError(f"{path}: '{key[:40]}' is no KEY=VALUE")
        if key not in KEYS:
            log.warning("%s: unknown key %s is ignored", path, key[:40])
        elif value:
            found[key] = value
    return found


def _url(found: Mapping[str, str]) -> str:
    host = found.get("RABBITMQ_HOST", "127.0.0.1")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    user, password, vhost = (
        quote(found.get(f"RABBITMQ_{key}", default), safe="")
        for key, default in (("USER", "guest"), ("PASSWORD", "guest"), ("VHOST", "/"))
    )
    return f"amqp://{user}:{password}@{host}:{_port(found, 'RABBITMQ_PORT', 5672)}/{vhost}"


def _port(found: Mapping[str, str], key: str, default: int) -> int:
    text = found.get(key, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise UsageError(f"{key} is {text[:40]!r}, which is no port (0 to 65535)")
    return int(text)
