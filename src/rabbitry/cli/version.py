"""`rabbitry version`."""

from __future__ import annotations

import typer

from rabbitry._version import __version__
from rabbitry.runtime.options import Json
from rabbitry.runtime.output import print_json

app: typer.Typer = typer.Typer()


@app.command("version")
def show(*, as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        print(f"rabbitry {__version__}")
