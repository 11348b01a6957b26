"""`rabbitry crawl add|pause|resume`: commands to the keeper."""

from __future__ import annotations

import asyncio
import io
import itertools
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from rabbitry._words import reason
from rabbitry.exceptions import UsageError
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import Broker, Json, Plain, broker_url, start_logging
from rabbitry.runtime.output import ExitCode, fail, one_line, print_json, say
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.crawl.messages import Add, Answer, Pause, Resume

AT_ONCE: Final = 5_000
"""Addresses in one command. The keeper takes each command in one transaction: 0.1 s of its CPU."""
LIMITED: Final = 20_000
"""Addresses that can share one limit: they go in one command."""
BYTES_AT_ONCE: Final = 4_000_000
"""The bytes of those: RabbitMQ 4 takes messages of up to 16 MiB."""
_NAMED: Final = 10
"""Bad addresses named in the output."""
_LONGEST_LINE: Final = 100_000
_LONGEST_DELAY: Final = 86_400.0
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
"""Replaces a byte that is not UTF-8."""


Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="[URL]...", help="The start addresses; `-` reads them from stdin.")
]
AddressFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file of start addresses, one a line; `-` for stdin.", show_default=False),
]
Depth = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="The most links away from the start. Default: unlimited."),
]
Contact = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A mail address or a page where sites can reach you; public sites need it."),
]
Delay = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Seconds between two requests to a host, 1 by default; a longer Crawl-delay in robots.txt wins.",
    ),
]
Recrawl = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Fetch pages again after this time, later by how often each changes. Default: never.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to those of `rabbitry crawl`."""
    app.command("add")(add)
    app.command("pause")(pause)
    app.command("resume")(resume)


def add(
    context: typer.Context,
    urls: Addresses = None,
    file: AddressFile = None,
    depth: Depth = None,
    *,
    same_host: Annotated[bool, typer.Option("--same-host", help="Stay on the hosts of these addresses.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="Stay on this domain and its subdomains; may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="PAGES", help="The most pages to fetch.")] = None,
    contact: Contact = None,
    delay: Delay = None,
    recrawl: Recrawl = None,
    plain: Plain = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Crawl from start addresses.

    Without --same-host and --allow it follows all links. If no keeper runs, the addresses wait on the broker.
    Example: rabbitry crawl add https://example.org/ --same-host --depth 3 --contact me@example.org
    """
    from rabbitry.apps.crawl.messages import Add, is_contact

    start_logging(Level.WARNING, as_json=False)
    if same_host and allow:
        raise UsageError("--same-host can't be combined with --allow: name the hosts with --allow")
    _check_seconds(delay, recrawl)
    if contact is not None and not is_contact(contact):
        raise UsageError(f"--contact is {contact!r}: pass a mail address (me@example.org) or the URL of a page")
    domains = _domains(allow or [])
    starts = _Starts(urls or [], file)
    parts = starts.parts(AT_ONCE if limit is None else LIMITED)
    if limit is not None:
        first = list(itertools.islice(parts, 2))
        if len(first) > 1:
            raise UsageError(f"--limit works for at most {len(first[0]):,} addresses at once: pass fewer")
        parts = iter(first)
    commands = (Add(part, depth, same_host, domains, limit, contact, delay, recrawl) for part in parts)
    _tell(broker_url(context, broker), commands, starts, plain=plain, as_json=as_json)


def _check_seconds(delay: float | None, recrawl: float | None) -> None:
    for name, number in (("--delay", delay), ("--recrawl", recrawl)):
        if number is not None and not (number >= 0 and math.isfinite(number)):
            raise UsageError(f"{name} is {number:g}: pass seconds, 0 or more")
    if delay is not None and delay > _LONGEST_DELAY:
        raise UsageError(f"--delay may be at most {_LONGEST_DELAY:g} seconds, a day")
    if recrawl == 0:
        raise UsageError("--recrawl must be more than 0 seconds")


def pause(context: typer.Context, *, plain: Plain = False, broker: Broker = None, as_json: Json = False) -> None:
    """Stop sending addresses to crawlers until `resume`. They finish the addresses that they have.

    Example: rabbitry crawl pause
    """
    from rabbitry.apps.crawl.messages import Pause

    start_logging(Level.WARNING, as_json=False)
    _tell(broker_url(context, broker), iter([Pause()]), plain=plain, as_json=as_json)


def resume(context: typer.Context, *, plain: Plain = False, broker: Broker = None, as_json: Json = False) -> None:
    """Send addresses to crawlers again, after `pause`.

    Example: rabbitry crawl resume
    """
    from rabbitry.apps.crawl.messages import Resume

    start_logging(Level.WARNING, as_json=False)
    _tell(broker_url(context, broker), iter([Resume()]), plain=plain, as_json=as_json)


# -- addresses -------------------------------------------------------------------------------------------


class _Starts:
    """The start addresses: the arguments, which must all be valid, and the lines of a file, read when needed.

    read: the lines and arguments read. bad: the number of lines that are not addresses that can be crawled; `named` has
    the error texts for the first of them.
    """

    def __init__(self, urls: list[str], file: Path | None) -> None:
        """Check the arguments and open the file. Raises UsageError if one can't be crawled, or the file not opened."""
        if "-" in urls and (file is not None or len(urls) > 1):
            raise UsageError("`-` reads the addresses from stdin: pass no others")
        if urls == ["-"]:
            urls, file = [], Path("-")
        self.read = len(urls)
        self.bad = 0
        self.named: list[str] = []
        self._urls = [url.strip() for url in urls]
        for url in self._urls:
            self._check(url, "")
        if self.bad:
            raise self.refusal()
        self._name = "stdin" if str(file) == "-" else str(file)
        self._file = None if file is None else self._open(file)

    def _open(self, file: Path) -> IO[bytes]:
        try:
            return sys.stdin.buffer if self._name == "stdin" else file.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._name} can't be read: {reason(error)}")

    def refusal(self) -> UsageError:
        """Return the error if there is nothing to add."""
        if not self.bad:
            return UsageError("no addresses: rabbitry crawl add URL..., or --file FILE")
        for text in self.named[:-1] if self.bad == len(self.named) else self.named:
            say(text)
        last = self.named[-1] if self.bad == len(self.named) else f"{self.bad:,} addresses can't be crawled"
        return UsageError(f"{last}; nothing was added")

    def parts(self, most: int) -> Iterator[list[str]]:
        """Yield the addresses of each command, at most `most` and none twice. Raises UsageError if reading fails."""
        part: dict[str, None] = {}
        length = 0
        for url in itertools.chain(self._urls, self._lines()):
            if url in part:
                continue
            size = len(url.encode("utf-8", "replace")) + 3
            if part and (len(part) == most or length + size > BYTES_AT_ONCE):
                yield list(part)
                part, length = {}, 0
            part[url] = None
            length += size
        if part:
            yield list(part)

    def _lines(self) -> Iterator[str]:
        """Yield the valid addresses of the file."""
        if self._file is None:
            return
        with self._file as file:
            # Bytes that are not UTF-8 are reported line by line.
            text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape")
            try:
                for number in itertools.count(1):
                    line = begun = text.readline(_LONGEST_LINE)
                    while line and not line.endswith("\n"):
                        line = text.readline(_LONGEST_LINE)
                    if not begun:
                        break
                    bare = begun.strip()
                    if bare and not bare.startswith("#"):
                        self.read += 1
                        if self._check(bare, f"{self._name}, line {number}: "):
                            yield bare
            except OSError as error:
                raise self._unreadable(error) from error

    def _check(self, url: str, where: str) -> bool:
        from rabbitry.apps.crawl.keeper.addresses import BadAddress, parse

        try:
            if _UNDECODED.search(url):
                raise BadAddress("bad-address", "it is not UTF-8 text")
            parse(url)
        except BadAddress as error:
            self.bad += 1
            if len(self.named) < _NAMED:
                self.named.append(f"{where}{error}")
            return False
        return True


def _domains(allow: list[str]) -> list[str]:
    from rabbitry.apps.crawl.keeper.scope import domain

    return [domain(text) for text in allow]


# -- sending ---------------------------------------------------------------------------------------------


def _tell(
    url: str,
    commands: Iterator[Add] | Iterator[Pause | Resume],
    starts: _Starts | None = None,
    *,
    plain: bool,
    as_json: bool,
) -> None:
    """Send the commands, each after the answer to the one before. starts: the source of the addresses."""

    async def work() -> int:
        from rabbitry.apps.crawl.asking import Asking, Waiting

        waiting: Waiting | None = None
        shows = starts is not None and sys.stderr.isatty() and not sys.stdout.isatty()
        sent = False
        async with Asking(url, plain=plain) as asking:
            while (command := await asyncio.to_thread(next, commands, None)) is not None:
                sent = True
                try:
                    # If one waits for a keeper, so do those after it.
                    answer = await asking.tell(command, patience=None if waiting is None else 0.0)
                except Waiting as error:
                    waiting = error  # it is on the broker's disk, which is all this command can do
                else:
                    _print_answer(answer, as_json=as_json)
                if shows and starts is not None:
                    print(f"\r{starts.read:,} addresses", end="", file=sys.stderr, flush=True)
        if shows:
            print(file=sys.stderr)
        if waiting is not None:
            if as_json:
                print_json({"waiting": True, "detail": str(waiting)})
            say(str(waiting))
        if starts is None or (sent and not starts.bad):
            return ExitCode.DONE
        if not sent:
            raise starts.refusal()
        for text in starts.named:
            say(text)
        fail(f"{starts.bad:,} of {starts.read:,} addresses can't be crawled; the others were added")

    raise typer.Exit(run_once(work()))


def _print_answer(answer: Answer, *, as_json: bool) -> None:
    """Print the keeper's answer, and end with an error if it refused all addresses."""
    for taken in answer.addresses:
        if as_json:
            print_json({"url": taken.url, "outcome": taken.outcome, "detail": taken.detail})
        else:
            print(one_line(f"{taken.outcome:12}  {taken.url}{'  ' if taken.detail else ''}{taken.detail}"))
    for text in answer.said:
        if as_json:
            print_json({"said": text})
        else:
            print(one_line(text))
    if answer.error:
        fail(answer.error)
