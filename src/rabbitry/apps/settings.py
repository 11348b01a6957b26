"""Settings of the programs that serve HTTP, from the environment and `.env`: the broker, the address, the password."""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from dotenv import dotenv_values

from rabbitry._decode import decode_text
from rabbitry._words import reason
from rabbitry.amqp.client import DEFAULT_URL
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.addresses import in_url, is_loopback

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
        "RABBITRY_BROKER",
        "RABBITRY_MANAGEMENT",
        "RABBITRY_OIDC_CLAIM",
        "RABBITRY_OIDC_CLIENT_ID",
        "RABBITRY_OIDC_CLIENT_SECRET",
        "RABBITRY_OIDC_CLIENT_SECRET_FILE",
        "RABBITRY_OIDC_ISSUER",
        "RABBITRY_OIDC_SCOPES",
        "RABBITRY_OIDC_TITLE",
        "RABBITRY_OIDC_URL",
        "RABBITRY_WEB_USERS",
    }
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The broker, and where the program serves HTTP."""

    broker: str = field(default=DEFAULT_URL, repr=False)
    host: str = "127.0.0.1"
    port: int
    password: str | None = field(default=None, repr=False)
    """Required of HTTP clients if set; needed if `host` can be reached from other machines."""
    has_login: bool = False
    """Whether the dashboard has a file of users, who sign in with names and passwords."""

    def __post_init__(self) -> None:
        if self.password is None and not self.has_login and not is_loopback(self.host):
            raise UsageError(
                f"the address {self.host!r} (--host or APP_HOST) can be reached from other machines, which needs a "
                "password: set APP_PASSWORD in the environment or in .env, or for the dashboard add users: "
                "rabbitry web users add"
            )


def from_environment(
    found: Mapping[str, str],
    *,
    default_port: int,
    broker: str | None = None,
    host: str | None = None,
    port: int | None = None,
    has_login: bool = False,
) -> Settings:
    """Return the settings in `variables`; other arguments that are not None override them.

    Raises:
        UsageError: A value is invalid. The text names its key.
    """
    return Settings(
        broker=broker or broker_url(found) or DEFAULT_URL,
        host=host or found.get("APP_HOST", "127.0.0.1"),
        port=_port(found, "APP_PORT", default_port) if port is None else port,
        password=found.get("APP_PASSWORD"),
        has_login=has_login,
    )


def variables(env_file: Path | None = None, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our variables: those of the process's environment override those of `env_file`. Empty ones are unset.

    If `env_file` is None, it is `.env` in the working directory, which need not exist. RABBITMQ_… variables of the
    environment override a RABBITRY_BROKER of the file.

    Raises:
        UsageError: The file can't be read, or a line of it is malformed. The text names file and line.
    """
    found = _file(env_file)
    process = os.environ if environment is None else environment
    here = {key: process[key] for key in KEYS if process.get(key)}
    if any(key.startswith("RABBITMQ_") for key in here):
        found.pop("RABBITRY_BROKER", None)
    return found | here


def broker_url(found: Mapping[str, str]) -> str | None:
    """Return the broker of RABBITRY_BROKER, or else of the RABBITMQ_… variables; None if none is set.

    Raises:
        UsageError: RABBITMQ_PORT is not a port.
    """
    if "RABBITRY_BROKER" in found:
        return found["RABBITRY_BROKER"]
    if not any(key.startswith("RABBITMQ_") for key in found):
        return None
    host = in_url(found.get("RABBITMQ_HOST", "127.0.0.1"))
    user, password, vhost = (
        quote(found.get(f"RABBITMQ_{key}", default), safe="")
        for key, default in (("USER", "guest"), ("PASSWORD", "guest"), ("VHOST", "/"))
    )
    return f"amqp://{user}:{password}@{host}:{_port(found, 'RABBITMQ_PORT', 5672)}/{vhost}"


def _file(env_file: Path | None) -> dict[str, str]:
    path = env_file or Path(".env")
    try:
        text = decode_text(path.read_bytes())
    except (OSError, Undecodable) as error:
        # Not by whether it exists: a file that can't be looked up may hold the password of the pages.
        if env_file is None and isinstance(error, FileNotFoundError):
            return {}
        raise UsageError(f"{path} can't be read: {reason(error)}") from error
    found: dict[str, str] = {}
    for key, value in _parsed(path, text).items():
        if key in KEYS:
            if value:
                found[key] = value
            continue
        close = difflib.get_close_matches(key.upper(), KEYS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        _logger.warning("%s: unknown key %s is ignored%s", path, key[:40], hint)
    return found


class _Complaints(logging.Handler):
    """Collects the lines that python-dotenv could not parse: it only logs them and parses on."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        number = record.getMessage().rpartition(" ")[2]
        self.lines.append(int(number) if number.isdecimal() else 1)


def _parsed(path: Path, text: str) -> dict[str, str]:
    """Return the keys and values of a file's text. Raises UsageError, which names the first malformed line."""
    logger, complaints = logging.getLogger("dotenv"), _Complaints()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(complaints)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    finally:
        logger.removeHandler(complaints)
        logger.setLevel(level)
        logger.propagate = propagate
    lines = re.split(r"\r\n|\r|\n", text)
    malformed = [_statement(lines, number) for number in complaints.lines]
    malformed += [_without_value(lines, key) for key, value in values.items() if value is None]
    if malformed:
        number = min(malformed)
        # Only the text before '=' is shown: the rest may be a password.
        shown = lines[number - 1].strip().partition("=")[0][:40]
        raise UsageError(f"{path}, line {number}: {shown!r} is not KEY=VALUE")
    return {key: value for key, value in values.items() if value is not None}


def _statement(lines: list[str], number: int) -> int:
    """Return the line on which a statement begins: python-dotenv counts preceding empty lines as part of it."""
    return next((later for later in range(number, len(lines) + 1) if lines[later - 1].strip()), 1)


def _without_value(lines: list[str], key: str) -> int:
    """Return the first line that has only a key."""
    bare = (key, f"'{key}'")
    plain = [line.partition("#")[0].strip().removeprefix("export ").strip() for line in lines]
    return next((number for number, line in enumerate(plain, 1) if line in bare), 1)


def _port(found: Mapping[str, str], key: str, default: int) -> int:
    text = found.get(key, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise UsageError(f"{key} is {text[:40]!r}, which is not a port (0 to 65535)")
    return int(text)
