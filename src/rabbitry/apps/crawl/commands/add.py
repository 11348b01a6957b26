"""`rabbitry crawl add|pause|resume`: commands to the keeper."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

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
"""Addresses of one command to the keeper, which takes each in one transaction: 0.1 s of its CPU."""
LIMITED: Final = 20_000
"""Addresses for which one limit can hold: they go in one command."""
BYTES_AT_ONCE: Final = 4_000_000
"""Their bytes: RabbitMQ 4 takes messages of up to 16 MiB."""
_NAMED: Final = 10
"""Bad addresses that are named."""
_LONGEST_LINE: Final = 100_000
_LONGEST_DELAY: Final = 86_400.0


Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="[URL]...", help="Where to begin; `-` reads them from stdin.")
]
AddressFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Addresses to begin from, one a line; `-` for stdin.", show_default=False),
]
Depth = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="The most links away from there; without a bound by default."),
]
Contact = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A mail address or a page that sites can reach you by; public sites need it."),
]
Delay = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Seconds between two requests to a host, 1 by default; a longer Crawl-delay of robots.txt holds.",
    ),
]
Recrawl = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Fetch pages again after this time, then by how often each changes; never by default.",
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
    same_host: Annotated[bool, typer.Option("--same-host", help="Stay on the hosts of these addresses.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="Stay on this domain and what is under it; may be given several times."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="PAGES", help="The most pages to fetch.")] = None,
    contact: Contact = None,
    delay: Delay = None,
    recrawl: Recrawl = None,
    plain: Plain = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Begin to crawl from addresses.

    Without --same-host and --allow it follows all links. Where no keeper runs, the addresses wait on the broker for
    one. Example: rabbitry crawl add https://example.org/ --same-host --depth 3 --contact me@example.org
    """
    from rabbitry.apps.crawl.messages import Add

    start_logging(Level.WARNING, as_json=False)
    if same_host and allow:
        raise UsageError("--same-host and --allow exclude each other: name the hosts with --allow")
    _check_seconds(delay, recrawl)
    if contact is not None and not contact.strip():
        raise UsageError("--contact is a mail address or a page, and not empty")
    starts = _checked(_read(urls or [], file))
    parts = list(_parts(starts, AT_ONCE if limit is None else LIMITED))
    if limit is not None and len(parts) > 1:
        raise UsageError(f"--limit holds for {len(parts[0]):,} addresses at once, and not for {len(starts):,}")
    domains = _domains(allow or [])
    commands = [Add(part, depth, same_host, domains, limit, contact, delay, recrawl) for part in parts]
    _tell(broker_url(context, broker), list(commands), plain=plain, as_json=as_json)


def _check_seconds(delay: float | None, recrawl: float | None) -> None:
    for name, number in (("--delay", delay), ("--recrawl", recrawl)):
        if number is not None and not (number >= 0 and math.isfinite(number)):
            raise UsageError(f"{name} is a number of seconds, 0 or more, and not {number:g}")
    if delay is not None and delay > _LONGEST_DELAY:
        raise UsageError(f"--delay is at most {_LONGEST_DELAY:g} seconds, a day")
    if recrawl == 0:
        raise UsageError("--recrawl is more than 0 seconds")


def pause(context: typer.Context, plain: Plain = False, broker: Broker = None, as_json: Json = False) -> None:
    """Send no more addresses to crawlers, until `resume`. What they have in hand, they finish.

    Example: rabbitry crawl pause
    """
    from rabbitry.apps.crawl.messages import Pause

    start_logging(Level.WARNING, as_json=False)
    _tell(broker_url(context, broker), [Pause()], plain=plain, as_json=as_json)


def resume(context: typer.Context, plain: Plain = False, broker: Broker = None, as_json: Json = False) -> None:
    """Send addresses to crawlers again, after `pause`.

    Example: rabbitry crawl resume
    """
    from rabbitry.apps.crawl.messages import Resume

    start_logging(Level.WARNING, as_json=False)
    _tell(broker_url(context, broker), [Resume()], plain=plain, as_json=as_json)


# -- addresses -------------------------------------------------------------------------------------------


def _read(urls: list[str], file: Path | None) -> list[tuple[str, str]]:
    """Return addresses and where each stands: arguments, then the lines of a file. Raises UsageError."""
    if "-" in urls and (file is not None or len(urls) > 1):
        raise UsageError("`-` reads the addresses from stdin: give no others beside it")
    if urls == ["-"]:
        urls, file = [], Path("-")
    found = [(url, "") for url in urls]
    if file is not None:
        found += _lines(file)
    if not found:
        raise UsageError("there is no address: rabbitry crawl add URL..., or --file FILE")
    return found


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    name = "stdin" if str(file) == "-" else str(file)
    try:
        data = sys.stdin.buffer.read() if name == "stdin" else file.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} can't be read: {reason(error)}") from error
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare and not bare.startswith("#"):
            yield bare[:_LONGEST_LINE], f"{name}, line {number}: "


def _checked(found: list[tuple[str, str]]) -> list[str]:
    """Return each address once, as it was typed. Raises UsageError, which names those that can't be crawled."""
    from rabbitry.apps.crawl.keeper.addresses import BadAddress, parse

    good: dict[str, None] = {}
    bad: list[str] = []
    for url, where in found:
        try:
            parse(url.strip())
        except BadAddress as error:
            bad.append(f"{where}{error}")
        else:
            good[url.strip()] = None
    if not bad:
        return list(good)
    for text in bad[: _NAMED - 1] if len(bad) > _NAMED else bad[:-1]:
        say(text)
    last = bad[-1] if len(bad) <= _NAMED else f"{len(bad):,} addresses can't be crawled"
    raise UsageError(f"{last}; nothing was added")


def _parts(urls: list[str], most: int) -> Iterator[list[str]]:
    """Divide addresses into those of one command each, `most` at most."""
    part: list[str] = []
    length = 0
    for url in urls:
        length += len(url.encode("utf-8", "replace")) + 3
        if part and (len(part) == most or length > BYTES_AT_ONCE):
            yield part
            part, length = [], len(url.encode("utf-8", "replace")) + 3
        part.append(url)
    yield part


def _domains(allow: list[str]) -> list[str]:
    from rabbitry.apps.crawl.keeper.scope import domain

    return [domain(text) for text in allow]


# -- telling ---------------------------------------------------------------------------------------------


def _tell(url: str, commands: list[Add | Pause | Resume], *, plain: bool, as_json: bool) -> None:
    async def work() -> int:
        from rabbitry.apps.crawl.asking import Asking, Waiting

        code = ExitCode.DONE
        async with Asking(url, plain=plain) as asking:
            for command in commands:
                try:
                    answer = await asking.tell(command)
                except Waiting as error:
                    # It is on the broker's disk: done, as far as this command can.
                    if as_json:
                        print_json({"waiting": True, "detail": str(error)})
                    say(str(error))
                    continue
                code = max(code, _print_answer(answer, as_json))
        return code

    raise typer.Exit(run_once(work()))


def _print_answer(answer: Answer, as_json: bool) -> ExitCode:
    """Print the keeper's answer, and end with an error where it refused all."""
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
    return ExitCode.DONE
