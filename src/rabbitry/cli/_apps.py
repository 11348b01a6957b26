"""Finding a user's App by MODULE:NAME, and the options that commands about apps share."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.flow.exceptions import AppError

if TYPE_CHECKING:
    from rabbitry.flow import App

AppPath = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app's module and name, e.g. shop.flow:app.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's name, or MODULE:APP.")]


def load_app(path: str, *, plain: bool = False) -> App:
    """Import an app. Raises AppError, with the reason, if the app can't be imported.

    plain: make the app declare as the original programs do, whatever its own setting is.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise AppError(f"{path!r} names no app: say MODULE:APP, e.g. shop.flow:app")
    from rabbitry.flow import App

    if os.getcwd() not in sys.path:
        # The command is installed elsewhere, the module lies here. The folder is first, as for a script of Python, and
        # as uvicorn and celery do it: an installed module must not replace the one that the user named.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except AppError:
        raise
    except Exception as error:
        raise AppError(f"module {module_name!r} does not import: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not isinstance(found, App):
        what = "has no" if found is None else f"has a {type(found).__name__}, and no App, called"
        raise AppError(f"module {module_name!r} {what} {name!r}")
    found.validate()
    if plain:
        if found.queue_type != "classic":
            raise AppError(
                f"app {found.name!r} has {found.queue_type} queues, which are durable: run it without --plain"
            )
        found.plain = True
    return found


def app_name(text: str) -> str:
    """Return the app's name, given that name or MODULE:APP."""
    return load_app(text).name if ":" in text else text
