"""`rabbitry apps`: the apps that are installed, and those that do not load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import typer

from rabbitry.apps import Plugin
from rabbitry.apps.installed import Broken, attempt, installed, resolve
from rabbitry.runtime.options import Json
from rabbitry.runtime.output import one_line, print_json

app: typer.Typer = typer.Typer()


@app.command("apps")
def show(*, as_json: Json = False) -> None:
    """List the installed apps: their packages, what they provide, and the reason if one does not load.

    Example: rabbitry apps
    """
    for row in _rows():
        if as_json:
            print_json(row)
            continue
        brings = ", ".join(row["brings"]) or "nothing"
        print(one_line(f"{row['name']:12} {row['title']}  ({row['source']}: {brings})"))
        for trouble in row["troubles"]:
            print(one_line(f"             does not load: {trouble}"))


def _rows() -> Iterator[dict[str, Any]]:
    found = installed()
    for name, plugin in found.plugins.items():
        yield {
            "name": name,
            "title": plugin.title,
            "source": found.sources[name],
            "brings": [kind for kind, _ in _references(plugin)] + [f"page {view.title!r}" for view in plugin.views],
            "troubles": [
                f"{kind}: {why.reason}"
                for kind, reference in _references(plugin)
                if isinstance(why := attempt(plugin, partial(resolve, reference)), Broken)
            ],
        }
    for broken in found.broken:
        row = {"name": broken.name, "title": "", "source": broken.source, "brings": [], "troubles": [broken.reason]}
        yield row


def _references(plugin: Plugin) -> list[tuple[str, str]]:
    named = (
        ("commands", plugin.commands),
        ("router", plugin.router),
        ("services", plugin.services),
        ("checks", plugin.checks),
    )
    return [(kind, reference) for kind, reference in named if reference is not None]
