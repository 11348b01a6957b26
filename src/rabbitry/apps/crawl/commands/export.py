"""`rabbitry crawl export`: the documents of the index as JSON lines, and their pages as WARC."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from rabbitry._version import __version__
from rabbitry._words import counted
from rabbitry.apps.crawl.commands.asking import DatabaseURL, asking
from rabbitry.exceptions import UsageError
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import Broker, Json, broker_url, named_database, start_logging
from rabbitry.runtime.output import ExitCode, json_line, print_json, say
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.crawl.answers import AskExport, Entry, Exported
    from rabbitry.apps.crawl.exporting import WARCFile

_WARC: Final = ".warc.gz"


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("export")(export)


def export(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the JSON lines to a file, completely or not at all. Default: stdout."),
    ] = None,
    warc: Annotated[
        Path | None,
        typer.Option(metavar=f"FILE{_WARC}", help="Write the pages as their servers sent them, as WARC 1.1."),
    ] = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Export the index: one JSON object a line with url, title, status, fetched_at, text and more.

    With --warc alone, no JSON lines are written. An existing file is replaced. Example:
    rabbitry crawl export --output pages.jsonl --warc pages.warc.gz
    """
    start_logging(Level.WARNING, as_json=False)
    if warc is not None and not warc.name.endswith(_WARC):
        raise UsageError(f"--warc {str(warc)!r}: the file's name must end with {_WARC}")
    if warc is not None and output is not None and warc.absolute() == output.absolute():
        raise UsageError("--output and --warc name the same file")
    where = named_database(context, database)
    url = broker_url(context, broker) if where is None else ""

    async def work() -> int:
        from rabbitry.apps.crawl.answers import Exported
        from rabbitry.apps.crawl.asking import expected
        from rabbitry.apps.crawl.exporting import WARCFile, pages, written_whole

        with contextlib.ExitStack() as files:
            # The files first: a file that can't be written is reported before any query.
            lines = None if output is None else files.enter_context(written_whole(output))
            archive = None
            if warc is not None:
                archive = WARCFile(files.enter_context(written_whole(warc)), warc.name, f"rabbitry {__version__}")
            writing = _Writing(lines, archive, to_stdout=output is None and warc is None)
            async with asking(where, url) as ask:

                async def next_(question: AskExport) -> Exported:
                    return expected(await ask(question), Exported)

                async for entries, total in pages(next_, bodies=archive is not None):
                    writing.add(entries, total)
        writing.end(output, warc, as_json=as_json)
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


class _Writing:
    """Writes entries to stdout, to a file of lines and to a WARC file, and shows progress on a terminal."""

    def __init__(self, lines: IO[bytes] | None, archive: WARCFile | None, *, to_stdout: bool) -> None:
        self._lines = lines
        self._archive = archive
        self._to_stdout = to_stdout
        self._shows = sys.stderr.isatty() and not (to_stdout and sys.stdout.isatty())
        self._count = self._without = 0

    def add(self, entries: list[Entry], total: int) -> None:
        from rabbitry.apps.crawl.exporting import as_row

        for entry in entries:
            line = json_line(as_row(entry)) if self._to_stdout or self._lines is not None else ""
            if self._to_stdout:
                sys.stdout.write(f"{line}\n")
            if self._lines is not None:
                self._lines.write(f"{line}\n".encode())
            if self._archive is not None and not self._archive.add(entry):
                self._without += 1
        self._count += len(entries)
        if self._shows:
            print(f"\r{self._count:,} of {max(total, self._count):,} documents", end="", file=sys.stderr, flush=True)

    def end(self, output: Path | None, warc: Path | None, *, as_json: bool) -> None:
        if self._shows:
            print(file=sys.stderr)
        if self._without:
            say(f"{counted(self._without, 'document')} left out of {warc}: their pages' bodies are not stored")
        if self._to_stdout:
            sys.stdout.flush()
            if not self._count:
                say("no documents yet")
        elif as_json:
            files = [str(path) for path in (output, warc) if path is not None]
            print_json({"documents": self._count, "without_page": self._without, "files": files})
        else:
            files = [str(path) for path in (output, warc) if path is not None]
            say(f"{counted(self._count, 'document')} written to {' and '.join(files)}")
