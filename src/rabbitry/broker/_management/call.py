"""A request to the management API: its user, the objects that its path names, and its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request

from rabbitry._decode import decode_object
from rabbitry.broker._management.changes import Changes
from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import Range, Rates
from rabbitry.broker._management.reading import Document
from rabbitry.broker._management.stats import Ranges
from rabbitry.broker._queues.queue import Queue
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import User
from rabbitry.broker.broker import Broker
from rabbitry.exceptions import RabbitryError, Undecodable

_LONGEST_NAME: Final = 255
_LINE: Final = 80
_MOST_SAMPLES: Final = 500

ADMINISTRATOR: Final = "administrator"
MONITORING: Final = "monitoring"
TAGS: Final = ("management", "policymaker", MONITORING, ADMINISTRATOR)


class Answer(RabbitryError):
    """An answer that ends a request early."""

    def __init__(self, status: int, error: str = "", reason: object = "") -> None:
        super().__init__(f"{status} {error} {reason}")
        self.status = status
        self.body: Json | None = {"error": error, "reason": reason} if error else None


def not_found() -> Answer:
    """Return RabbitMQ's answer for an object that does not exist."""
    return Answer(404, "Object Not Found", "Not Found")


def bad(reason: object) -> Answer:
    """Return RabbitMQ's answer for an invalid request."""
    return Answer(400, "bad_request", reason)


def refused() -> Answer:
    """Return RabbitMQ's answer for a request that the user has no right to."""
    return Answer(401, "not_authorised", "Access refused.")


def need_keys(body: Json, *names: str) -> None:
    """Raise Answer (400) if a body lacks required fields; the text names them as RabbitMQ prints them."""
    missing = [f"{{key_missing,{name}}}" for name in names if name not in body]
    if missing:
        text = f"[{','.join(missing)}]"
        raise bad(text if len(text) <= _LINE else text.replace(",{", ",\n {"))


class Call:
    """A request, with its user and the objects that its path names."""

    def __init__(
        self, broker: Broker, rates: Rates, pace: Pace, changes: Changes, request: Request, user: User, body: bytearray
    ) -> None:
        self.broker = broker
        self.rates = rates
        self.pace = pace
        self.changes = changes
        self.request = request
        self.user = user
        self.method = request.method
        self._body = body

    def path(self, name: str) -> str:
        """Return a part of the path."""
        text = unquote(str(self.request.path_params[name]))
        if len(text.encode()) > _LONGEST_NAME:
            raise bad(f"{text[:40]!r}… is longer than {_LONGEST_NAME} bytes, the limit of a name")
        return text

    def body(self) -> Json:
        """Return the JSON object of the body."""
        if not self._body:
            return {}
        try:
            return decode_object(self._body)
        except Undecodable as error:
            raise bad("not_json") from error

    async def document(self) -> Document:
        """Return the JSON object of a large request body. Raises Answer."""
        document = Document(self._body or b"{}")
        async with self.pace as pace:
            try:
                await document.read(pace)
            except Undecodable as error:
                raise bad("failed_to_parse_json") from error
        return document

    async def carry_out(self, steps: Iterable[None]) -> object:
        """Run the steps of a change, between which other clients have their turn. Return DONE."""
        async with self.pace as pace:
            await pace.go_over(steps, self.broker.journal)
        return DONE

    def vhost(self) -> VirtualHost:
        """Return the virtual host of the path."""
        vhost = self.broker.vhosts.get(self.path("vhost"))
        if vhost is None:
            raise Answer(404, "not_found", "vhost_not_found") if self.method == "PUT" else not_found()
        if not self.sees(vhost.name):
            raise Answer(401, "not_authorised", "User not authorised to access virtual host")
        return vhost

    def queue(self) -> Queue:
        """Return the queue of the path."""
        queue = self.vhost().queues.get(self.path("name"))
        if queue is None:
            raise not_found()
        return queue

    def sees(self, vhost: str) -> bool:
        """Return whether the caller may see a virtual host."""
        return ADMINISTRATOR in self.user.tags or self.broker.access.may_enter(vhost, self.user.name)

    def need(self, kind: Any, vhost: str, name: str) -> None:
        """Raise Answer unless the caller has a permission for a name."""
        if not self.broker.access.may(kind, vhost, self.user.name, name or "amq.default"):
            raise refused()

    def administrator(self) -> None:
        """Raise Answer unless the caller is an administrator."""
        if ADMINISTRATOR not in self.user.tags:
            raise Answer(401, "not_authorised", "Not administrator user")

    def policymaker(self) -> None:
        """Raise Answer unless the caller may make policies."""
        if not {"policymaker", ADMINISTRATOR} & set(self.user.tags):
            raise Answer(401, "not_authorised", "Not policymaker user")

    @property
    def ranges(self) -> Ranges:
        """The samples that the query requests. Raises Answer for an invalid query."""
        return read_ranges(self.request.query_params)

    @property
    def disables_stats(self) -> bool:
        """Whether the query excludes statistics."""
        return self.request.query_params.get("disable_stats") == "true"

    def vhosts(self) -> list[VirtualHost]:
        """Return the virtual hosts that the caller may see, or the one of the path."""
        if "vhost" in self.request.path_params:
            return [self.vhost()]
        return [vhost for vhost in self.broker.vhosts.values() if self.sees(vhost.name)]


def only(item: Json, columns: str) -> Json:
    """Return the fields of an object that a query's `columns` names."""
    shown: Json = {}
    for column in columns.split(","):
        value = found_in(item, column)
        if value is not None:
            target = shown
            *parents, last = column.split(".")
            for part in parents:
                inner = target.setdefault(part, {})
                if not isinstance(inner, dict):
                    break  # already included completely
                target = inner
            else:
                target[last] = value
    return shown


def found_in(item: Json, path: str) -> object:
    """Return the value at a dotted path of an object; None if there is none."""
    value: object = item
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def number(text: str, otherwise: str) -> int:
    """Return an integer. Raises Answer with the text `otherwise` if it is not one."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise bad(otherwise)
    return int(text)


def read_ranges(query: QueryParams) -> Ranges:
    """Read `lengths_age`, `lengths_incr` and the like. Raises Answer if they request no sample, or too many."""
    return Ranges(*(_range(query, name) for name in ("lengths", "msg_rates", "data_rates")))


def _range(query: QueryParams, name: str) -> Range | None:
    try:
        wanted = Range(int(query[f"{name}_age"]), int(query[f"{name}_incr"]))
    except (KeyError, ValueError):
        return None
    if wanted.age <= 0 or wanted.incr <= 0 or wanted.age // wanted.incr > _MOST_SAMPLES:
        raise bad(f"Invalid range parameters: age {wanted.age}, incr {wanted.incr}")
    return wanted


Handler = Callable[[Call], object]
ROUTES: list[tuple[str, tuple[str, ...], Handler]] = []
CREATED: Final = object()
DONE: Final = object()


def route(path: str, *methods: str) -> Callable[[Handler], Handler]:
    """Register the decorated function as the handler of a path (GET if no method is named)."""

    def register(handler: Handler) -> Handler:
        ROUTES.append((path, methods or ("GET",), handler))
        return handler

    return register
