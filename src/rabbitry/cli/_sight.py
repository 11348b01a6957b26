"""What a management API tells of queues and exchanges, for replacing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rabbitry.apps.management import NothingThere, get, get_object, part_of
from rabbitry.flow.wiring.replacing import Bound, Seen

if TYPE_CHECKING:
    import httpx

_POLICY: Final = "effective_policy_definition"


class ManagementSight:
    """The management API of a broker. client: with the broker's login. vhost: the virtual host's name."""

    def __init__(self, client: httpx.AsyncClient, vhost: str) -> None:
        self._client = client
        self._vhost = quote(vhost, safe="")

    async def queue(self, name: str) -> Seen | None:
        """Return a queue; None if there is none."""
        return await self._seen("queues", name)

    async def exchange(self, name: str) -> Seen | None:
        """Return an exchange; None if there is none."""
        return await self._seen("exchanges", name)

    async def bindings_of_queue(self, name: str) -> Sequence[Bound]:
        """Return the bindings of a queue, without that to the default exchange."""
        return [one for one in await self._bound("queues", name, "") if one.source]

    async def bindings_of_exchange(self, name: str, *, as_source: bool) -> Sequence[Bound]:
        """Return the bindings from an exchange, or those that lead to it."""
        return await self._bound("exchanges", name, "/source" if as_source else "/destination")

    async def _seen(self, kind: str, name: str) -> Seen | None:
        try:
            found = await get_object(self._client, f"/api/{kind}/{self._vhost}/{quote(name, safe='')}")
        except NothingThere:
            return None
        return Seen(
            dict(part_of(found, "arguments")),
            auto_delete=found.get("auto_delete") is True,
            is_exclusive=found.get("exclusive") is True,
            messages=_number(found, "messages"),
            unsettled=_number(found, "messages_unacknowledged"),
            consumers=_number(found, "consumers"),
            message_bytes=_number(found, "message_bytes"),
            policy=part_of(found, _POLICY) if _POLICY in found else None,
        )

    async def _bound(self, kind: str, name: str, end: str) -> list[Bound]:
        try:
            found = await get(self._client, f"/api/{kind}/{self._vhost}/{quote(name, safe='')}/bindings{end}")
        except NothingThere:
            return []
        return [
            Bound(
                str(one.get("source", "")),
                str(one.get("destination", "")),
                one.get("destination_type") == "queue",
                str(one.get("routing_key", "")),
                dict(part_of(one, "arguments")),
            )
            for one in found
        ]


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) else 0
