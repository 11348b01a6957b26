"""The HTML around each page: its modules and style sheets, with relative URLs that work behind a proxy's prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from rabbitry.apps import Plugin, View

STATIC: Final = Path(__file__).parent / "static"
"""The files that all pages share."""
_NAME: Final = "Rabbitry"


def shell(plugin: Plugin, view: View, place: str) -> str:
    """Return the HTML of a view.

    Args:
        plugin: The app that provides the view.
        view: The view.
        place: The view's place in the dashboard; it ends with a slash, or is empty for the first page.
    """
    root = "../" * place.count("/")
    own = f"{root}{plugin.name}/static/"
    modules = [f"{own}{name}" for name in _modules(plugin.static)]
    title = f"{view.title} – {_NAME}" if place else _NAME
    lines = [
        *_head(title, view.description, root),
        *(f'<link rel="stylesheet" href="{escape(own + style)}">' for style in view.styles),
        *_preloaded([f"{root}static/{name}" for name in [*_modules(STATIC), "views.js"]]),
        *_preloaded(module for module in modules if module != own + view.module),
        f'<script type="module" src="{escape(own + view.module)}"></script>',
    ]
    text = "This page draws what it receives with JavaScript, which is switched off here."
    return _document(lines, [f'<div id="page"><noscript>{text}</noscript></div>'])


def overview(entries: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of a first page that only leads to others.

    Args:
        entries: Place and title of each.
    """
    links = [f'<a href="{escape(place)}">{escape(title)}</a>' for place, title in entries]
    places = f'<nav class="places">{"".join(links)}</nav>'
    brand = f'<div class="brand"><img src="static/icon.svg" alt="" width="28" height="28"><h1>{_NAME}</h1></div>'
    nothing = [] if links else ['<main><p class="nothing">No app brings a page.</p></main>']
    return _document(_head(_NAME, "", ""), [f'<header class="top">{brand}{places}</header>', *nothing])


def _document(head: Iterable[str], body: Iterable[str]) -> str:
    inner = [f"    {line}" for line in head], [f"    {line}" for line in body]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "  <head>",
        *inner[0],
        "  </head>",
        "  <body>",
        *inner[1],
        "  </body>",
    ]
    return "\n".join([*lines, "</html>", ""])


def _head(title: str, description: str, root: str) -> list[str]:
    about = [f'<meta name="description" content="{escape(description)}">'] if description else []
    return [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        *about,
        f"<title>{escape(title)}</title>",
        f'<link rel="icon" href="{root}static/icon.svg" type="image/svg+xml">',
        f'<link rel="stylesheet" href="{root}static/style.css">',
    ]


def _preloaded(modules: Iterable[str]) -> Iterator[str]:
    """Yield links that fetch modules at once, and not each after the one that imports it."""
    for module in modules:
        yield f'<link rel="modulepreload" href="{escape(module)}">'


def _modules(folder: Path | None) -> list[str]:
    return [] if folder is None else sorted(path.name for path in folder.glob("*.js"))
