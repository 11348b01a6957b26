"""Predicting the outcome of an address never seen before, as if a page linked to it now."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import sets, traps
from rabbitry.apps.crawl.keeper.addresses import Address
from rabbitry.apps.crawl.keeper.outcomes import WORDS
from rabbitry.apps.crawl.keeper.robots import CLOSED, RULES, UNREAD, Robots
from rabbitry.apps.crawl.keeper.scope import Crawl

_MOST_CRAWLS = 1_000
"""The most crawls examined, newest first."""


def predict(connection: Connection, address: Address, now: float) -> str:
    """Return an address's outcome by scope, limit, traps and robots.txt, as far as they are known."""
    crawls = [crawl for crawl in _crawls(connection) if crawl.has_host(address.host)]
    if not crawls:
        return "out-of-scope"
    if all(crawl.is_full for crawl in crawls):
        return "limit"
    if traps.grows(address.url):
        return "trap"
    for row in sets.rows(
        connection, "SELECT state, outcome, until, body FROM crawl_robots WHERE origin = ?", address.origin
    ):
        if row.state == CLOSED and row.until > now:
            return WORDS.get(row.outcome, "disallowed")
        if row.state in (RULES, UNREAD) and not Robots(address.origin, 0, RULES, body=row.body).allows(address.url):
            return "disallowed"
    return "queued"


def _crawls(connection: Connection) -> list[Crawl]:
    rows = sets.rows(
        connection,
        "SELECT id, at, hosts, allow, page_limit, pages FROM crawl_crawls ORDER BY id DESC LIMIT ?",
        _MOST_CRAWLS,
    )
    return [
        Crawl(row.id, row.at, [], None, _list(row.hosts), _list(row.allow), row.page_limit, pages=row.pages)
        for row in rows
    ]


def _list(text: str | None) -> list[str] | None:
    return None if text is None else msgspec.json.decode(text, type=list[str])
