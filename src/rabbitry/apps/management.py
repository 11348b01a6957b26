"""Asking a broker's management API: where it is, and what its refusals mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabbitry.exceptions import ConnectFailed, Undecodable, UsageError

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL

_PORT = 15672
Management = Annotated[
    str | None,
    typer.Option(
        "--management",
        envvar="RABBITRY_MANAGEMENT",
        metavar="URL",
        help=f"The broker's management API; http://HOST:{_PORT} otherwise, with the broker's host.",
        show_default=False,
    ),
]


def management_url(management: str | None, login: BrokerURL) -> str:
    """Return the URL of the management API: as given, else on RabbitMQ's port of the broker's first host."""
    if management is None:
        host = login.hosts[0][0]
        return f"http://[{host}]:{_PORT}" if ":" in host else f"http://{host}:{_PORT}"
    if not management.startswith(("http://", "https://")):
        raise UsageError(f"--management {management!r}: a URL begins with http:// or https://")
    return management.rstrip("/")


def open_client(url: str, login: BrokerURL) -> httpx.AsyncClient:
    """Make a client that logs in as at the broker. Raises UsageError for what is no URL."""
    import httpx

    try:
        return httpx.AsyncClient(base_url=url, auth=(login.user, login.password), timeout=10)
    except httpx.InvalidURL as error:
        raise UsageError(f"--management {url!r} is no URL: {error}") from error


async def get(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Get a list of the API. Raises ConnectFailed: unreachable, login refused, or no such API."""
    import httpx

    from rabbitry._decode import decode_json

    try:
        response = await client.get(path)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConnectFailed(f"the management API at {client.base_url} refused the login; see RABBITRY_BROKER")
        response.raise_for_status()
        found = decode_json(response.content, list[dict[str, Any]])
    except httpx.HTTPStatusError as error:
        raise ConnectFailed(f"{client.base_url} answered {error.response.status_code} to {path}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectFailed(
            f"no management API at {client.base_url}: {error or type(error).__name__}; "
            "--management URL or RABBITRY_MANAGEMENT names another"
        ) from error
    except Undecodable as error:
        raise ConnectFailed(
            f"{client.base_url} answered no JSON list to {path} ({error}): is it a management API?"
        ) from error
    return found
