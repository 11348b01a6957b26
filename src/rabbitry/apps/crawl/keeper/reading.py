"""Reading a crawl's state from the database: its progress, the decisions about an address, and its hosts.

These functions only read; any keeper, and any program that can open the database, may call them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row

from rabbitry._words import counted
from rabbitry.apps.crawl.answers import Decision, HostAnswer, Hosts, Status, Why
from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.keeper.addresses import BadAddress, long_key, origin_of, parse
from rabbitry.apps.crawl.keeper.outcomes import WORDS, refused
from rabbitry.apps.crawl.keeper.predicting import predict
from rabbitry.apps.crawl.keeper.robots import ALL_ALLOWED, RULES, UNAVAILABLE, UNREAD
from rabbitry.apps.crawl.keeper.seen import ref_of
from rabbitry.apps.crawl.keeper.state import LATER, SENT, WAITING
from rabbitry.apps.crawl.keeper.trail import steps
from rabbitry.apps.crawl.keeper.work import SLOT, state_word
from rabbitry.apps.crawl.messages import OUTCOMES

_MINUTE: Final = 60 // SLOT
_ROBOTS: Final = {RULES: "robots", ALL_ALLOWED: "robots", UNREAD: "robots"}
"""The word for a known robots.txt; otherwise the outcome of fetching it is used."""


def status(connection: Connection, now: float) -> Status:
    """Return the progress of the crawl, without documents and nodes, which are not part of the frontier."""
    counts = {row.name: row.number for row in sets.rows(connection, "SELECT name, number FROM crawl_counts")}
    keeper = sets.rows(connection, "SELECT is_paused, crawl FROM crawl_keeper WHERE id = 1")[0]
    hosts = sets.rows(
        connection,
        "SELECT count(*) AS number, coalesce(sum(CASE WHEN waiting > 0 AND due > ? THEN 1 ELSE 0 END), 0) AS waiting,"
        " coalesce(sum(pages), 0) AS pages FROM crawl_hosts",
        now,
    )[0]
    out = sets.rows(connection, "SELECT count(DISTINCT host) FROM crawl_batches")[0][0]
    slot = int(now) // SLOT
    pace = sets.rows(
        connection,
        "SELECT coalesce(sum(pages), 0) FROM crawl_pace WHERE slot >= ? AND slot < ?",
        slot - _MINUTE,
        slot,
    )[0][0]
    return Status(
        at=now,
        is_paused=bool(keeper.is_paused),
        addresses={word: counts.get(f"state:{word}", 0) for word in ("queued", "sent", "done")},
        outcomes=_outcomes(counts),
        pages=int(hosts.pages),
        rate=int(pace) / (SLOT * _MINUTE),
        hosts=hosts.number,
        hosts_out=out,
        hosts_waiting=int(hosts.waiting),
        backlog=counts.get("backlog", 0),
        wire=counts.get("wire", 0),
        size=counts.get("bytes", 0),
        carried=counts.get("compressed", 0),
        crawl=keeper.crawl,
    )


def _outcomes(counts: dict[str, int]) -> dict[str, int]:
    """Return the number of addresses by outcome, in the order of the list of outcomes."""
    found = {word: counts.get(f"outcome:{word}", 0) for word in OUTCOMES}
    return {word: number for word, number in found.items() if number > 0}


# -- one address -----------------------------------------------------------------------------------------


def why(connection: Connection, url: str, now: float) -> Why:
    """Return the decisions about an address, also if it was never found or can't be fetched."""
    try:
        address = parse(url.strip())
    except BadAddress as error:
        if error.word == "too-long" and (ref := ref_of(connection, long_key(url.strip()))) < 0:
            return _refused(url, ref)
        return Why(url, "unknown", would=error.word, detail=str(error))
    ref = ref_of(connection, address.key)
    if not ref:
        nobody = "no page read so far links to it, and it was not added"
        return Why(address.url, "unknown", would=predict(connection, address, now), detail=nobody)
    if ref < 0:
        return _refused(address.url, ref)
    row = sets.rows(
        connection,
        "SELECT a.url, a.state, a.depth, a.source, a.found_at, a.crawl, a.trail, a.outcome, s.url AS found_on, l.due,"
        " h.due AS host_due FROM crawl_addresses a LEFT JOIN crawl_addresses s ON s.id = abs(a.source)"
        " LEFT JOIN crawl_later l ON l.address = a.id LEFT JOIN crawl_hosts h ON h.id = a.host WHERE a.id = ?",
        ref,
    )[0]
    found_on = row.found_on or ""
    if found_on and row.source < 0:
        found_on = f"{origin_of(found_on)}/robots.txt"
    begun = f"found on {found_on}" if found_on else ("added" if row.crawl else "arrived without being requested")
    decisions = [Decision(row.found_at, "queued", "keeper", f"crawl {row.crawl}, depth {row.depth}: {begun}")]
    decisions += [Decision(step.at, step.word, step.node, step.detail) for step in steps(row.trail)]
    next_at = row.due if row.state == LATER else max(row.host_due or 0.0, now) if row.state == WAITING else None
    return Why(
        row.url,
        state_word(row.state, row.outcome),
        decisions,
        detail=_detail(connection, row, now),
        next_at=next_at,
        found_on=found_on,
        depth=row.depth,
    )


def _refused(url: str, ref: int) -> Why:
    word, at = refused(ref)
    about = "when it was found; the time is rounded to ten minutes"
    return Why(url, "done", [Decision(at, word, "keeper", about)], detail=OUTCOMES[word])


def _detail(connection: Connection, row: Row[*tuple[Any, ...]], now: float) -> str:
    if row.state == SENT:
        return OUTCOMES["sent"]
    if row.state == LATER:
        return "it will be fetched again when it is due"
    if row.state == WAITING:
        return _waits_for(connection, row, now)
    word = WORDS.get(row.outcome, "")
    return OUTCOMES.get(word, "")


def _waits_for(connection: Connection, row: Row[*tuple[Any, ...]], now: float) -> str:
    """Return why a queued address is not sent yet."""
    if sets.rows(connection, "SELECT is_paused FROM crawl_keeper WHERE id = 1")[0].is_paused:
        return "the crawl is paused: rabbitry crawl resume"
    origin = row.url[: row.url.index("/", 8)]
    robots = sets.rows(connection, "SELECT state, outcome, tries, detail FROM crawl_robots WHERE origin = ?", origin)
    if robots and robots[0].state == UNAVAILABLE:
        one = robots[0]
        why_not = f"{WORDS.get(one.outcome, '')}, tried {counted(one.tries, 'time')}"
        return f"robots.txt can't be fetched ({why_not}): nothing is allowed until it is"
    if row.host_due is not None and row.host_due > now:
        return "its host is not due yet"
    return OUTCOMES["queued"]


# -- hosts -----------------------------------------------------------------------------------------------


def hosts(connection: Connection, limit: int, offset: int = 0) -> Hosts:
    """Return hosts, those with most waiting addresses first."""
    total = sets.rows(connection, "SELECT count(*) FROM crawl_hosts")[0][0]
    found = sets.rows(
        connection,
        "SELECT h.*, EXISTS (SELECT 1 FROM crawl_batches b WHERE b.host = h.id) AS out FROM (SELECT id, name, waiting,"
        " later, sent, pages, problems, delay, robots_delay, backoff, due, outcomes FROM crawl_hosts"
        " ORDER BY waiting DESC, name LIMIT ? OFFSET ?) AS h ORDER BY h.waiting DESC, h.name",
        limit,
        offset,
    )
    robots: dict[int, Row[*tuple[Any, ...]]] = {}
    for row in sets.rows_among(
        connection,
        "SELECT host, origin, state, outcome FROM crawl_robots WHERE host IN {set} ORDER BY at",
        [row.id for row in found],
    ):
        robots[row.host] = row
    return Hosts([_host(row, robots.get(row.id)) for row in found], total)


def _host(row: Row[*tuple[Any, ...]], robots: Row[*tuple[Any, ...]] | None) -> HostAnswer:
    last = msgspec.json.decode(row.outcomes or "[]", type=list[tuple[float, str]])
    return HostAnswer(
        origin=robots.origin if robots is not None else row.name,
        queued=row.waiting + row.later,
        sent=row.sent,
        done=row.pages + row.problems,
        delay=max(row.delay, row.robots_delay, row.backoff),
        next_at=row.due,
        is_out=bool(row.out),
        robots="" if robots is None else _ROBOTS.get(robots.state, WORDS.get(robots.outcome, "")),
        last=[Decision(at, word) for at, word in reversed(last)],
    )
