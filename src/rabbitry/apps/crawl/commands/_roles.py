"""Running a role of a crawl as a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import typer

from rabbitry.runtime.io_thread import new_event_loop
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.service import GRACE, run_service

DEADLINE: Final = 10.0
"""Seconds in which a stopping role may finish its work in progress."""


def run_role(run: Callable[[asyncio.Event], Awaitable[bool]]) -> NoReturn:
    """Run a role until SIGTERM or Ctrl-C, and exit with 0 if it finished its work in progress, else with 1.

    run: returns whether it finished, after the event was set.
    """

    async def service(stop: asyncio.Event) -> int:
        return ExitCode.DONE if await run(stop) else ExitCode.FAILED

    raise typer.Exit(run_service(service, deadline=DEADLINE + 2 * GRACE, new_loop=new_event_loop))
