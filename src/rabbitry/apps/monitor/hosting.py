"""The parts of host monitoring that `rabbitry web` and `rabbitry up` run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry.apps import Service, Services, Site, Up
from rabbitry.runtime.options import as_arguments, port_option

if TYPE_CHECKING:
    from fastapi import APIRouter

HTTP_PORT: Final = 8000

Queue = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The exclusive queue that samples come to; '' lets the broker name one.",
        show_default="QUEUE_NAME, or Consumer",
    ),
]
HTTPPort = Annotated[
    int | None,
    port_option(help="The port of /publish; 0 takes a free one.", show_default=str(HTTP_PORT)),
]


def router(site: Site, queue: Queue = None) -> APIRouter:
    """Return the routes of the machines' page."""
    from rabbitry.apps.monitor.names import CONSUMER_QUEUE, SYSTEM_INFO
    from rabbitry.apps.monitor.web import feed_of, pages

    exchange = site.variables.get("EXCHANGE_NAME", SYSTEM_INFO.name)
    named = site.variables.get("QUEUE_NAME", CONSUMER_QUEUE) if queue is None else queue
    return pages(site, feed_of(site.broker, exchange, named))


def services(up: Up, http_port: HTTPPort = None) -> Services:
    """Return the agent of this machine."""
    # A queue that the broker names leaves the name of contract system_info to a program that expects it.
    web = as_arguments(queue="")
    if not up.is_wanted:
        return Services(web=web)
    # The agent takes this port itself; here it is only seen to be free, so that the error comes at once.
    port = up.free_port(http_port, HTTP_PORT, "--http-port")
    # The page may start later than the agent; a sample that came too early must not cost it 5 s.
    arguments = ("monitor", "publish", *as_arguments(http=port, probe_interval=1), *up.declaring)
    agent = Service(name="the agent", arguments=arguments, after_page=False, is_needed=True)
    return Services(children=(agent,), web=web)
