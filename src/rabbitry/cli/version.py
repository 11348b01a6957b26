"""`rabbitry version`."""

from __future__ import annotations

import typer

from rabbitry.cli._common import Json, print_json, version

app = typer.Typer()


@app.command("version")
def show(as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": version()})
    else:
        print(f"rabbitry {version()}")
