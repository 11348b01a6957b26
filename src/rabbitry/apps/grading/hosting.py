"""The routes and services of the assignment correction for `rabbitry web` and `rabbitry up`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rabbitry.apps import Service, Services, Site, Up
from rabbitry.apps.grading.commands.options import ExchangeType, People, Type
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import as_arguments

if TYPE_CHECKING:
    from fastapi import APIRouter


def router(site: Site, exchange_type: Type = ExchangeType.DIRECT) -> APIRouter:
    """Return the routes of the course's page."""
    from fastapi import APIRouter

    from rabbitry.apps.grading.signing import VARIABLE
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.grading.web import Pages

    wiring = Wiring(exchange_type=exchange_type.value, plain=site.plain)
    named = site.variables.get(VARIABLE)
    pages = Pages(site.broker, wiring=wiring, key=Path(named) if named else None, audit=site.audit)
    found = APIRouter(lifespan=lambda _: pages.open())
    found.include_router(pages.router)
    return found


def services(up: Up, person: People = None, exchange_type: Type = ExchangeType.DIRECT) -> Services:
    """Return the process that runs all roles.

    Raises:
        UsageError: People are named for a role that is not run.
    """
    web = as_arguments(exchange_type=exchange_type)
    if not up.is_wanted:
        if person:
            raise UsageError(
                "--person concerns the roles of grading, which are not run here: add --apps monitor,grading, "
                "or run them with: rabbitry grading run --person ROLE"
            )
        return Services(web=web)
    roles = ("grading", "run", *as_arguments(person=person, exchange_type=exchange_type), *up.declaring)
    return Services(children=(Service(name="grading", arguments=roles, is_quiet=False),), web=web)
