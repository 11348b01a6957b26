"""The command `Add`, which starts a crawl."""

from __future__ import annotations

from typing import Final

from rabbitry._words import counted
from rabbitry.apps.crawl.keeper import hosts, sets
from rabbitry.apps.crawl.keeper.addresses import LONGEST, Address, BadAddress, may_be_public, parse
from rabbitry.apps.crawl.keeper.links import Links, fetch_anew
from rabbitry.apps.crawl.keeper.scope import Crawl, domain
from rabbitry.apps.crawl.keeper.state import DONE, LATER
from rabbitry.apps.crawl.keeper.work import Row, Work, as_json
from rabbitry.apps.crawl.messages import Add, Answer, Taken, is_contact

MOST: Final = 20_000
"""Addresses in one command, which with that many takes 0.5 s of CPU; 5 s if all origins are known and name three
sitemaps each."""
MOST_NAMED: Final = 20
"""Start addresses recorded to identify a crawl."""
_LONGEST_CONTACT: Final = 200
_LARGEST: Final = 1_000_000_000
"""The largest number of pages, links or seconds: databases and calendars have limits."""


def add(work: Work, command: Add, message: str) -> Answer:
    """Start a crawl. A message that comes again starts none."""
    if sets.rows(work.connection, "SELECT id FROM crawl_crawls WHERE message = ?", message):
        return Answer(said=["added before"])
    try:
        _check(command)
        allow = [domain(text) for text in command.allow] or None
    except BadAddress as error:
        return Answer(error=str(error))
    found: dict[int, Address] = {}
    taken: list[Taken] = []
    for text in command.urls:
        try:
            address = parse(text.strip())
        except BadAddress as error:
            taken.append(Taken(text[:LONGEST], error.word, str(error)))
            work.counts[f"outcome:{error.word}"] += 1
        else:
            found.setdefault(address.key, address)
    contact = command.contact or work.state.contact
    public = [address.url for address in found.values() if may_be_public(address.host)]
    if public and not contact:
        return Answer(
            error=f"{public[0]} is a public address: name a contact for its owner with --contact MAIL-OR-PAGE"
        )
    if not found:
        why = f"no address can be crawled: {taken[0].detail}" if taken else "there is no start address"
        return Answer(error=why, addresses=taken)
    crawl = _crawl(work, command, message, list(found.values()), allow)
    # Of the origins that are known, robots.txt may have been read for an earlier crawl that did not go as far.
    known = {address.origin for address in found.values() if address.host in work.state.by_name}
    links = Links(work)
    for address in found.values():
        outcome, row = _start(work, crawl, address)
        taken.append(Taken(address.url, outcome))
        if address.origin in known:
            known.discard(address.origin)
            links.add_sitemaps(work.robots_of(address.origin, work.state.by_name[address.host]), row)
    links.take()
    return Answer(said=[f"crawl {crawl.id} starts from {counted(len(found), 'page')}"], addresses=taken)


def _check(command: Add) -> None:
    if len(command.urls) > MOST:
        raise BadAddress(
            "bad-address", f"{len(command.urls):,} addresses are too many for one command: send at most {MOST:,}"
        )
    numbers = (
        ("depth", command.depth),
        ("limit", command.limit),
        ("delay", command.delay),
        ("recrawl", command.recrawl),
    )
    for name, number in numbers:
        if number is not None and not 0 <= number <= _LARGEST:
            raise BadAddress("bad-address", f"{name} is {number}: it must be a number from 0 to {_LARGEST:,}")
    if command.limit == 0 or command.recrawl == 0:
        raise BadAddress("bad-address", "limit and recrawl must be more than 0")
    contact = command.contact
    if contact is not None and (len(contact) > _LONGEST_CONTACT or not is_contact(contact)):
        why = f"contact is {contact[:_LONGEST_CONTACT]!r}: it must be a mail address or the URL of a page"
        raise BadAddress("bad-address", f"{why}, of at most {_LONGEST_CONTACT} characters")


def _crawl(work: Work, command: Add, message: str, starts: list[Address], allow: list[str] | None) -> Crawl:
    state = work.state
    at_hosts = sorted({address.host for address in starts}) if command.same_host else None
    crawl = Crawl(
        state.next_crawl, work.now, [address.url for address in starts][:MOST_NAMED], command.depth, at_hosts, allow,
        command.limit, command.contact, command.delay, command.recrawl,
    )  # fmt: skip
    state.next_crawl += 1
    state.begin(crawl)
    state.contact = crawl.contact or state.contact
    values = (
        crawl.id, crawl.at, as_json(crawl.urls), crawl.depth, as_json(crawl.hosts), as_json(crawl.allow), crawl.limit,
        crawl.contact, crawl.delay, crawl.recrawl, message,
    )  # fmt: skip
    sets.change(work.connection, _INSERT, *values)
    return crawl


def _start(work: Work, crawl: Crawl, address: Address) -> tuple[str, Row]:
    """Add an address to the crawl; return its outcome, as in `Taken`, and its row."""
    host = work.host_named(address.host, crawl.delay)
    if crawl.delay is not None:
        host.delay = crawl.delay
    hosts.reopen(work, host, address.origin)
    work.state.bring(host, crawl.id)
    row = work.row_of(address.key)
    if row is None:
        row = work.add(address, crawl, 0)
    elif row.state in (DONE, LATER):
        fetch_anew(work, row, crawl, 0)
    else:
        row.crawl, row.depth = crawl.id, 0
        work.change(row)
        return "known", row
    return "queued", row


_INSERT: Final = (
    "INSERT INTO crawl_crawls (id, at, urls, depth, hosts, allow, page_limit, contact, delay, recrawl, message)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
