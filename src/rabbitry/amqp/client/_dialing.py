"""Opening links to the hosts of a URL, with the current credentials."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import ConnectFailed, LoginRefused, VirtualHostRefused

if TYPE_CHECKING:
    from rabbitry.amqp.client._link import LinkOwner

Credentials: TypeAlias = Callable[[], tuple[str, str] | Awaitable[tuple[str, str]]]
"""A function that returns (user, password), or an awaitable of them. It is called in a thread for each login."""


class Dialing:
    """The hosts of one connection and the credentials for them."""

    def __init__(
        self,
        url: BrokerURL,
        timeout: float,
        properties: Table,
        context: ssl.SSLContext | None,
        credentials: Credentials | None,
    ) -> None:
        """timeout: seconds for each host. properties, context: see `Link.open`. credentials: of `connect`."""
        self.url: BrokerURL = url
        """The broker's URL, with the password of the next login."""
        self._timeout = timeout
        self._properties = properties
        self._context = context
        self._credentials = credentials

    @property
    def label(self) -> str:
        """The broker's URL, without the password, and the connection's name if it has one; for the log."""
        name = self._properties.get("connection_name")
        return str(self.url) if name is None else f"{self.url} ({name})"

    async def new_link(self, owner: LinkOwner) -> Link:
        """Try the hosts in order until one accepts the connection.

        Raises ConnectFailed naming every host and cause; LoginRefused and VirtualHostRefused at once, since the other
        hosts of the same cluster would refuse too.
        """
        causes: list[str] = []
        url = await self._login()
        for host, port in self.url.hosts:
            link = Link(owner)
            try:
                async with asyncio.timeout(self._timeout):
                    await link.open(host, port, url, self._properties, self._context)
            except (LoginRefused, VirtualHostRefused):
                raise
            except TimeoutError:
                causes.append(f"no answer from {host}:{port} within {self._timeout} s")
            except ConnectFailed as error:
                causes.append(str(error))
            else:
                return link
        raise ConnectFailed("; ".join(causes))

    async def _login(self) -> BrokerURL:
        """Return the URL with the user and password of the next login.

        Raises ConnectFailed if the `credentials` function raises or takes longer than the connection's timeout. A
        recovery then tries again, since the server that issues tokens may be down for a while.
        """
        if self._credentials is None:
            return self.url
        try:
            async with asyncio.timeout(self._timeout):
                answer = await asyncio.to_thread(self._credentials)  # it may request a token from a server
                user, password = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError as error:
            raise ConnectFailed(f"the credentials function returned nothing within {self._timeout} s") from error
        except Exception as error:
            raise ConnectFailed(f"the credentials function raised {type(error).__name__}: {error}") from error
        return self.url._replace(user=user, password=password)

    def replace_password(self, password: str) -> None:
        """Use another password for the next logins."""
        self.url = self.url._replace(password=password)
