"""`rabbitry crawl status|search|why|hosts`: queries to a keeper, or to the crawl's database."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand

from rabbitry.apps.crawl.commands._words import ago, moment, print_table, saved, size, span
from rabbitry.exceptions import UsageError
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import Broker, Json, Offset, broker_url, named_database, start_logging
from rabbitry.runtime.output import ExitCode, one_line, print_json, say
from rabbitry.runtime.parent import DATABASE
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.crawl.answers import Answered, Decision, Found, Hosts, Question, Status, Why

T = TypeVar("T")
Ask: TypeAlias = "Callable[[Question], Awaitable[Answered]]"

DatabaseURL = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar=DATABASE,
        metavar="URL",
        help="Read the crawl's database, sqlite:///FILE or postgresql://user@host/name, instead of asking a keeper.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `rabbitry crawl`."""
    app.command("status")(status)
    # A word that begins with `-` is not an option but a word to leave out.
    app.command("search", cls=_SearchCommand, context_settings={"ignore_unknown_options": True})(search)
    app.command("why")(why)
    app.command("hosts")(hosts)


@contextlib.asynccontextmanager
async def asking(database: str | None, broker: str) -> AsyncIterator[Ask]:
    """Yield the function that answers queries: from the crawl's database if one is named, else by a keeper."""
    if database is None:
        from rabbitry.apps.crawl.asking import Asking

        async with Asking(broker) as keeper:
            yield keeper.ask
        return
    from rabbitry.apps.crawl.keeper.answering import answer
    from rabbitry.apps.crawl.keeper.database import Database

    with Database(database, existing=True) as records:

        async def ask(question: Question) -> Answered:
            return await records.read(partial(answer, question=question))

        yield ask


def asked(
    context: typer.Context,
    broker: str | None,
    database: str | None,
    question: Question,
    kind: type[T],
    show: Callable[[T], None],
) -> None:
    """Send one query, show its answer, and end the command."""
    start_logging(Level.WARNING, as_json=False)
    where = named_database(context, database)
    url = broker_url(context, broker) if where is None else ""

    async def work() -> int:
        from rabbitry.apps.crawl.asking import expected

        async with asking(where, url) as ask:
            answer = expected(await ask(question), kind)
        show(answer)
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


def iso(seconds: float | None) -> str | None:
    """Return a time in ISO 8601 for JSON."""
    from rabbitry.apps.crawl.exporting import iso as written

    return written(seconds)


# -- status ----------------------------------------------------------------------------------------------


def status(
    context: typer.Context, database: DatabaseURL = None, broker: Broker = None, *, as_json: Json = False
) -> None:
    """Show the crawl's progress: addresses, pages, bytes, hosts, outcomes, and the running nodes.

    Example: rabbitry crawl status
    """
    from rabbitry.apps.crawl.answers import AskStatus, Status

    asked(context, broker, database, AskStatus(), Status, _status_as_json if as_json else _show_status)


def _status_as_json(found: Status) -> None:
    nodes = None
    if found.nodes is not None:
        nodes = [
            {"kind": node.kind, "id": node.id, "host": node.host, "at": iso(node.at), "done": node.done}
            for node in found.nodes
        ]
    print_json(
        {
            "at": iso(found.at),
            "paused": found.is_paused,
            "addresses": found.addresses,
            "outcomes": found.outcomes,
            "pages": found.pages,
            "pages_per_second": round(found.rate, 3),
            "documents": found.documents,
            "backlog": found.backlog,
            "hosts": {"known": found.hosts, "out": found.hosts_out, "waiting": found.hosts_waiting},
            "bytes": {"wire": found.wire, "pages": found.size, "broker": found.carried},
            "saved": saved(found.carried, found.size),
            "nodes": nodes,
        }
    )


def _show_status(found: Status) -> None:
    from rabbitry.apps.crawl.messages import OUTCOMES

    states = ", ".join(f"{number:,} {state}" for state, number in found.addresses.items()) or "none"
    rows = [
        ("crawl", "paused: rabbitry crawl resume" if found.is_paused else "running"),
        ("addresses", states),
        ("pages", f"{found.pages:,} fetched, {found.rate:.1f} a second; {found.documents:,} in the index"),
        ("hosts", f"{found.hosts:,} known, {found.hosts_out:,} being fetched, {found.hosts_waiting:,} not due yet"),
        (
            "bytes",
            f"{size(found.size)} of pages: {size(found.wire)} from the sites, {size(found.carried)} on the broker "
            f"({saved(found.carried, found.size)} saved by compression)",
        ),
    ]
    if found.backlog:
        rows.append(("backlog", f"{found.backlog:,} documents whose links the keeper has yet to follow"))
    for name, text in rows:
        print(f"{name:10} {text}")
    if found.outcomes:
        print("outcomes")
        counts = sorted(found.outcomes.items(), key=lambda item: -item[1])
        print_table([(f"{number:,}", word, OUTCOMES.get(word, "")) for word, number in counts], right={0}, indent=2)
    if found.nodes is None:
        print(f"{'nodes':10} unknown: the database does not list running nodes; run without --database")
        return
    print("nodes" if found.nodes else f"{'nodes':10} none runs")
    nodes = [
        (
            node.kind,
            node.id,
            node.host,
            f"{node.done:,} {'messages' if node.kind == 'keeper' else 'pages'}",
            ago(node.at),
        )
        for node in found.nodes
    ]
    print_table(nodes, right={3}, indent=2)


# -- search ----------------------------------------------------------------------------------------------


_LITERAL: Final = f"{__name__}.literal"


class _SearchCommand(TyperCommand):
    """A command that notes how many of its arguments come after `--`: none of these is a mistyped option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override] # typer's own Context
        ctx.meta[_LITERAL] = len(args) - 1 - args.index("--") if "--" in args else 0
        return super().parse_args(ctx, args)


def search(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORDS...", help='Words of a page; "a phrase", -WORD to leave out, site:HOST for one host.'
        ),
    ],
    limit: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="The most pages to show.")] = 10,
    offset: Offset = 0,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Search the pages of the crawl, best first.

    Example: rabbitry crawl search '"green apples" -pie site:example.org'
    """
    from rabbitry.apps.crawl.answers import LONGEST_SEARCH, AskSearch, Found

    unknown = [word for word in words[: len(words) - context.meta[_LITERAL]] if word.startswith("--")]
    if unknown:
        more = "write -- before the words to search for it"
        raise UsageError(f"{unknown[0][:60]!r} is not an option: see rabbitry crawl search --help, or {more}")
    typed = " ".join(words)[: LONGEST_SEARCH + 1]
    question = AskSearch(typed.encode("utf-8", "replace").decode(), limit, offset)
    show = partial(_found_as_json, offset) if as_json else partial(_show_found, offset)
    asked(context, broker, database, question, Found, show)


def _found_as_json(offset: int, found: Found) -> None:
    if found.note:
        say(found.note)
    for place, hit in enumerate(found.hits, offset + 1):
        print_json(
            {
                "place": place,
                "url": hit.url,
                "title": hit.title,
                "snippet": hit.snippet,
                "marks": hit.marks,
                "score": hit.score,
                "language": hit.language,
                "fetched_at": iso(hit.fetched_at),
            }
        )


def _show_found(offset: int, found: Found) -> None:
    if found.note:
        say(found.note)
    bold, normal = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    for place, hit in enumerate(found.hits, offset + 1):
        print(f"{place:>3}  {bold}{one_line(hit.title) or '(no title)'}{normal}")
        print(f"     {one_line(hit.url)}  ({ago(hit.fetched_at)})")
        if hit.snippet:
            print(f"     {_marked(hit.snippet, hit.marks, bold, normal)}")
    if not found.total:
        say("no page matches")
    elif not found.hits:
        say(f"there are only {found.total:,}")
    else:
        most = "more than " if found.is_more else ""
        say(f"{offset + 1:,} to {offset + len(found.hits):,} of {most}{found.total:,}")


def _marked(snippet: str, marks: list[tuple[int, int]], bold: str, normal: str) -> str:
    parts = []
    done = 0
    for start, end in marks:
        if done <= start <= end:
            parts += [_inside(snippet[done:start]), bold, _inside(snippet[start:end]), normal]
            done = end
    return "".join([*parts, _inside(snippet[done:])]).strip()


def _inside(text: str) -> str:
    """Return part of a line without control characters, but with its spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


# -- why -------------------------------------------------------------------------------------------------


def why(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The address.")],
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Show why an address was or was not fetched: each decision, with its time and node.

    Example: rabbitry crawl why https://example.org/page
    """
    from rabbitry.apps.crawl.answers import AskWhy, Why

    question = AskWhy(url.encode("utf-8", "replace").decode())
    asked(context, broker, database, question, Why, _why_as_json if as_json else _show_why)


def _why_as_json(found: Why) -> None:
    print_json(
        {
            "url": found.url,
            "state": found.state,
            "detail": found.detail,
            "would": found.would or None,
            "next_at": iso(found.next_at),
            "found_on": found.found_on or None,
            "depth": found.depth,
            "decisions": [_decision(decision) for decision in found.decisions],
            "cut": found.cut,
        }
    )


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "at": iso(decision.at) if decision.at else None,
        "outcome": decision.outcome,
        "node": decision.node,
        "detail": decision.detail,
    }


def _show_why(found: Why) -> None:
    from rabbitry.apps.crawl.messages import OUTCOMES

    state = "not seen" if found.state == "unknown" else found.state
    print(one_line(f"{found.url}: {state}{': ' if found.detail else ''}{found.detail}"))
    if found.would:
        print("  " + one_line(f"it would be {found.would}: {OUTCOMES.get(found.would, '')}"))
    if found.cut:
        print(f"  ({found.cut:,} older decisions are not shown)")
    decisions = []
    for decision in found.decisions:
        when = moment(decision.at) if decision.at else ""
        what = decision.detail or OUTCOMES.get(decision.outcome, "")
        decisions.append((when, decision.outcome, f"{what}  (by {decision.node})" if decision.node else what))
    print_table(decisions, indent=2)
    if found.next_at is not None:
        print(f"  next: {_due(found.next_at)}")


def _due(at: float) -> str:
    """Format a due time; a past time is due now."""
    return ago(max(at, time.time()))


# -- hosts -----------------------------------------------------------------------------------------------


def hosts(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="The most hosts to show.")] = 50,
    offset: Offset = 0,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """List the hosts of the crawl, those with most queued addresses first: delay, next time, last outcomes.

    Example: rabbitry crawl hosts --limit 20
    """
    from rabbitry.apps.crawl.answers import AskHosts, Hosts

    asked(context, broker, database, AskHosts(limit, offset), Hosts, _hosts_as_json if as_json else _show_hosts)


def _hosts_as_json(found: Hosts) -> None:
    for host in found.hosts:
        print_json(
            {
                "origin": host.origin,
                "queued": host.queued,
                "sent": host.sent,
                "done": host.done,
                "delay": host.delay,
                "next_at": iso(host.next_at or None),
                "out": host.is_out,
                "robots": host.robots or None,
                "last": [_decision(decision) for decision in host.last],
            }
        )


def _show_hosts(found: Hosts) -> None:
    if not found.hosts:
        say(
            "no hosts yet: add one with rabbitry crawl add URL"
            if not found.total
            else f"there are only {found.total:,}"
        )
        return
    rows = []
    for host in found.hosts:
        due = "fetching" if host.is_out else "-" if host.next_at is None or not host.queued else _due(host.next_at)
        last = ", ".join(dict.fromkeys(decision.outcome for decision in host.last))
        delay = f"{host.delay:g} s" if host.delay < 60 else span(host.delay)
        rows.append((host.origin, f"{host.queued:,}", f"{host.sent:,}", f"{host.done:,}", delay, due, last))
    print_table(rows, ("host", "queued", "sent", "done", "delay", "next", "last outcomes"), right={1, 2, 3, 4})
    if len(found.hosts) < found.total:
        say(f"{len(found.hosts):,} of {found.total:,} hosts shown: see others with --limit and --offset")
