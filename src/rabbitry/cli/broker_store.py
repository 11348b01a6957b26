"""`rabbitry broker check|repair DIR`: the data folder of a broker that does not run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.runtime.options import Json
from rabbitry.runtime.output import ExitCode, one_line, print_json, say

if TYPE_CHECKING:
    from rabbitry.broker.rescue import Survey

app: typer.Typer = typer.Typer()
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The broker's data folder, where broker.sqlite is.")]


@app.command("check")
def check(folder: Folder, *, as_json: Json = False) -> None:
    """Check the data folder of a stopped broker for damage. Nothing is changed.

    Exit code 0: no damage; 1: damage, or a folder that can't be read.

    Example: rabbitry broker check ./mq
    """
    from rabbitry.broker.rescue import alone, survey

    with alone(folder):
        found = survey(folder, _progress())
    _print(found, as_json=as_json, aside=None)
    raise typer.Exit(ExitCode.DONE if found.is_whole else ExitCode.FAILED)


@app.command("repair")
def repair(folder: Folder, *, as_json: Json = False) -> None:
    """Rebuild a damaged store from everything that can still be read, and list what was lost.

    The damaged files are kept in a folder damaged-… beside it, with the list of lost messages. An undamaged store is
    not changed. A broker that finds damage when it starts does the same.

    Example: rabbitry broker repair ./mq
    """
    from rabbitry.broker.rescue import alone, finish, rebuild, room_for_repair, survey

    aside = None
    with alone(folder):
        finish(folder)
        found = survey(folder, _progress())
        if not found.is_whole:
            needed, free = room_for_repair(folder)
            say(f"the repair needs at most {needed / 1e6:,.1f} MB in {folder}, where {free / 1e6:,.1f} MB are free")
            found, aside = rebuild(folder, _progress(), despite_errors=True)
    _print(found, as_json=as_json, aside=aside)


def _print(found: Survey, *, as_json: bool, aside: Path | None) -> None:
    if as_json:
        print_json(
            {
                "whole": found.is_whole,
                "queues": found.queues,
                "damage": found.damage,
                "lost": found.lost,
                "unplaced": found.unplaced,
                "records": [f"{kind} {key}" for kind, key, _ in found.records],
                "set_aside": None if aside is None else str(aside),
            }
        )
        return
    for name, count in found.queues.items():
        print(one_line(f"queue {name}: {count:,} messages"))
    for line in found.lines():
        print(one_line(f"damaged: {line}"))
    if aside is not None:
        print(f"repaired; the old files and the list of what was lost are in {aside}")
    else:
        print("all of it is whole" if found.is_whole else "damaged: `rabbitry broker repair` serves what is left")


def _progress() -> Callable[[int, int], None]:
    """Return a function that writes to stderr, at most once a second, how many pages were read of how many."""
    says_at = time.monotonic() + 1

    def progress(done: int, total: int) -> None:
        nonlocal says_at
        if time.monotonic() > says_at:
            says_at = time.monotonic() + 1
            say(f"read {done:,} of {total:,} pages")

    return progress
