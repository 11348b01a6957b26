"""The routes and services of a crawl for `rabbitry web` and `rabbitry up`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from rabbitry.apps import Service, Services, Site, Up

if TYPE_CHECKING:
    from fastapi import APIRouter

    from rabbitry.apps.crawl.web import Pages

MODULES: Final = (
    "ada_url",
    "brotli",
    "protego",
    "pycurl",
    "resiliparse",
    "selectolax",
    "stopwordsiso",
    "warcio",
    "webencodings",
    "zstandard",
)
"""Modules of the extra `crawl`: the roles need all of them."""


def router(site: Site) -> APIRouter:
    """Return the routes of the crawl's page."""
    from rabbitry.apps.crawl.web import Pages

    return hosted(Pages(site.broker, plain=site.plain))


def hosted(pages: Pages) -> APIRouter:
    """Return the routes of the page, whose picture is fed while the dashboard runs."""
    from fastapi import APIRouter

    router = APIRouter(lifespan=lambda _: pages.open())
    router.include_router(pages.router)
    return router


def services(up: Up) -> Services:
    """Return the process that runs all roles. Raises ModuleNotFoundError if the extra `crawl` is not installed."""
    if not up.is_wanted:
        return Services()
    for name in MODULES:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Services(children=(Service(name="crawl", arguments=("crawl", "run", *up.declaring)),))
