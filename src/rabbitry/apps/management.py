"""Requests to a broker's management API: its address, and errors that explain a refusal."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import quote

import typer

from rabbitry.exceptions import ConnectFailed, LoginRefused, Undecodable, UsageError

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL

T = TypeVar("T")
_PORT = 15672
_LONGEST_SHOWN = 300
"""Characters of a path in an error: the path holds names that somebody typed."""
_LONGEST_NAME: Final = 255
"""Bytes of a name."""
Management = Annotated[
    str | None,
    typer.Option(
        "--management",
        envvar="RABBITRY_MANAGEMENT",
        metavar="URL",
        help=f"The broker's management API. Default: http://HOST:{_PORT} with the broker's host.",
        show_default=False,
    ),
]


def management_url(management: str | None, login: BrokerURL) -> str:
    """Return the URL of the management API: the given one, else RabbitMQ's port on the broker's first host."""
    if management is None:
        host = login.hosts[0][0]
        return f"http://[{host}]:{_PORT}" if ":" in host else f"http://{host}:{_PORT}"
    if not management.startswith(("http://", "https://")):
        raise UsageError(f"--management {management!r}: a URL begins with http:// or https://")
    return management.rstrip("/")


def open_client(url: str, login: BrokerURL, *, timeout: float = 10) -> httpx.AsyncClient:
    """Return a client with the broker's login; `timeout` is in seconds. Raises UsageError for a malformed URL."""
    import httpx

    try:
        return httpx.AsyncClient(
            base_url=url, auth=(login.user, login.password), timeout=timeout, verify=_trusted(url.startswith("https:"))
        )
    except httpx.InvalidURL as error:
        raise UsageError(f"--management {url!r} is not a URL: {error}") from error


@functools.cache
def _trusted(public: bool) -> ssl.SSLContext:  # noqa: FBT001 - the key of the cache
    """Return a context that trusts the public authorities, or nobody, for clients of plain HTTP.

    Loading the authorities takes 35 ms of CPU; httpx does it for each client, whether it uses TLS or not.
    """
    import httpx

    return httpx.create_ssl_context() if public else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class RequestRefused(ConnectFailed):
    """The management API refuses a request. reason: in its own words."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class NothingThere(RequestRefused):
    """The management API has no such object or path (404)."""


class Unanswerable(ConnectFailed):
    """The management API can't be asked for a thing of this name, or what it answers is something else."""


def place_of(*names: str) -> str:
    """Return the place of a thing in a list of the API: its virtual host, if it has one, and its name.

    Raises:
        Unanswerable: The API has no path for a thing of this name.
    """
    for name in names:
        # A URL with a segment of dots is that of another place. A name of the broker is UTF-8, of 255 bytes at most.
        if name in ("", ".", "..") or len(name.encode(errors="replace")) > _LONGEST_NAME:
            raise Unanswerable(f"{_cut(name)!r} can't be asked for over the management API")
    return "/".join(quote(name, safe="", errors="replace") for name in names)


async def fetch(
    client: httpx.AsyncClient,
    path: str,
    *,
    method: str = "GET",
    json: object = None,
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Request a path of the API and return the body; `timeout` is in seconds, the client's by default.

    Raises:
        LoginRefused: The login is refused, or lacks the permission.
        NothingThere: There is no such object or path.
        RequestRefused: The API refuses; the text has its reason.
        ConnectFailed: The API is unreachable.
    """
    import httpx

    more = {} if timeout is None else {"timeout": timeout}
    try:
        response = await client.request(method, path, json=json, headers=headers, **more)  # type: ignore[arg-type] # only a timeout
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectFailed(
            f"no management API at {client.base_url}: {error or type(error).__name__}; "
            "--management URL or RABBITRY_MANAGEMENT names another"
        ) from error
    if response.status_code == httpx.codes.UNAUTHORIZED:
        why = _reason(response.content)
        if why in ("", "Login failed"):
            raise LoginRefused(f"the management API at {client.base_url} refused the login; see RABBITRY_BROKER")
        raise LoginRefused(
            f"the management API at {client.base_url} refuses this to the user of the broker's URL ({why}); "
            "see the user's tags and permissions"
        )
    if response.is_success:
        return response.content
    kind = NothingThere if response.status_code == httpx.codes.NOT_FOUND else RequestRefused
    why = _reason(response.content)
    text = f"{client.base_url} answered {response.status_code} to {_cut(path)}{why and f': {why}'}"
    raise kind(text, why or f"{response.status_code} {response.reason_phrase}")


def part_of(thing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object within an object; an empty one if something else is there (RabbitMQ writes `[]` for none)."""
    found = thing.get(name)
    return found if isinstance(found, dict) else {}


async def get(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Fetch a list from the API. Raises the errors of `get_object`."""
    return await _get(client, path, list[dict[str, Any]])


async def get_object(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Fetch an object from the API. Raises the errors of `fetch`, and Unanswerable if the answer is none."""
    return await _get(client, path, dict[str, Any])


def decode_answer(body: bytes, type_: type[T]) -> T:
    """Decode an answer of the API, without what is nested too deeply for that. Raises Undecodable.

    RabbitMQ takes and shows tables of any depth, as arguments or properties that anybody may send.
    """
    from rabbitry._decode import decode_json, flattened

    try:
        return decode_json(body, type_)
    except Undecodable as error:
        if not isinstance(error.__cause__, RecursionError):
            raise
    return decode_json(flattened(body), type_)


async def _get(client: httpx.AsyncClient, path: str, type_: type[T]) -> T:
    body = await fetch(client, path)
    if type_ == dict[str, Any] and body == b"[]":
        body = b"{}"  # RabbitMQ writes an object without members so, as that of a queue whose figures it has not yet
    try:
        return decode_answer(body, type_)
    except Undecodable as error:
        what = "list" if type_ == list[dict[str, Any]] else "object"
        raise Unanswerable(
            f"{client.base_url} answered no JSON {what} to {_cut(path)} ({error}): is it a management API?"
        ) from error


def _cut(path: str) -> str:
    return path if len(path) <= _LONGEST_SHOWN else f"{path[:_LONGEST_SHOWN]}…"


def _reason(body: bytes) -> str:
    """Return the reason that a refusal names, on one line; empty if it names none."""
    from rabbitry._decode import decode_object

    try:
        found = decode_object(body).get("reason")
    except Undecodable:
        return ""
    return " ".join(str(found).split())[:300] if found else ""
