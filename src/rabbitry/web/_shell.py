"""The HTML around each page: its modules, style sheets and navigation, with relative URLs that work behind a proxy."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec

from rabbitry.apps import Role, User, View
from rabbitry.runtime.http.guard import policy_with
from rabbitry.web._navigation import Entry

STATIC: Final = Path(__file__).parent / "static"
"""The files that all pages share, and those of the dashboard's own views."""
_NAME: Final = "Rabbitry"
_IMPORT: Final = re.compile(r"""^(?:import|export)\b(?:[^"';()]*\bfrom)?\s*"(\.[^"]+)";""", re.MULTILINE)
_LATER: Final = re.compile(r"""\bimport(?:\.meta\.resolve)?\("(\.[^"]+)"\)""")
_SHELL: Final = "static/shell.js"
_STYLES: Final = ("style", "parts", "tables")
"""The style sheets of all pages, of which later ones have precedence."""
_THEMES: Final = (("system", "System"), ("light", "Light"), ("dark", "Dark"))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the dashboard.

    Attributes:
        view: The view that it shows.
        place: Its place in the dashboard; it ends with a slash, or is empty for the first page.
        folder: The place of the view's modules and style sheets; it ends with a slash.
        modules: Modules to fetch at once, relative to the dashboard's root, beside those that all pages share.
        later: Modules that the page may import later, relative to the dashboard's root.
        styles: Style sheets, relative to the dashboard's root.
    """

    view: View
    place: str
    folder: str
    modules: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person that a page is made for.

    Attributes:
        user: The user.
        token: The token that the page sends with requests that change something.
        has_login: Whether people have to sign in.
    """

    user: User
    token: str
    has_login: bool


@dataclass(frozen=True, slots=True)
class Document:
    """The HTML of a page, and the policy that it needs for its import map."""

    html: str
    policy: str


def shell(page: Page, entries: Sequence[Entry], visitor: Visitor, address: Callable[[str], str]) -> Document:
    """Return the HTML of a page.

    Args:
        page: The page.
        entries: The navigation.
        visitor: The person who requested it.
        address: Returns the address of a file with its version, both relative to the dashboard's root.
    """
    root = "../" * page.place.count("/")
    view = page.view

    def link(place: str) -> str:
        return escape(f"{root}{address(place)}")

    preloaded = dict.fromkeys((*imported(_SHELL, STATIC), *page.modules))
    own = f"{page.folder}{view.module}"
    imports = _import_map(root, (_SHELL, own, *preloaded, *page.later), address)
    head = [
        # Before any module, or browsers take no import map.
        f'<script type="importmap">{imports}</script>',
        *_head(f"{view.title} – {_NAME}", view.description, root, address),
        f'<meta name="rabbitry-token" content="{escape(visitor.token)}">',
        f'<meta name="rabbitry-role" content="{visitor.user.role.label}">',
        f'<meta name="rabbitry-user" content="{escape(visitor.user.name)}">',
        *(f'<link rel="stylesheet" href="{link(page.folder + style)}">' for style in view.styles),
        *(f'<link rel="stylesheet" href="{link(style)}">' for style in page.styles),
        *(f'<link rel="modulepreload" href="{link(module)}">' for module in preloaded),
        f'<script type="module" src="{link(_SHELL)}"></script>',
        f'<script type="module" src="{link(own)}"></script>',
    ]
    text = "This page draws what it receives with JavaScript, which is switched off here."
    body = [
        '<a class="skip" href="#page">Skip to the content</a>',
        *_header(view.title, root, link("static/icon.svg")),
        *_places(page.place, entries, root, visitor),
        f'<main id="page" tabindex="-1"><noscript>{text}</noscript></main>',
    ]
    return Document(_document(head, body), policy_with(imports))


def login_page(token: str, provider: str = "") -> str:
    """Return the HTML of the page for signing in, which lies in a folder of the root.

    Args:
        token: The token that the page sends with the name and password.
        provider: The name of the OpenID Connect provider that people may use instead; empty if there is none.
    """
    root = "../"
    other = [f'  <p id="other"><a href="{root}oidc">Sign in with {escape(provider)}</a></p>'] if provider else []
    head = [
        *_head(f"Sign in – {_NAME}", "", root),
        f'<meta name="rabbitry-token" content="{escape(token)}">',
        f'<script type="module" src="{root}static/login.js"></script>',
    ]
    body = [
        '<main class="login" id="page">',
        f'  <h1><img src="{root}static/icon.svg" alt="" width="40" height="40"> {_NAME}</h1>',
        '  <form id="sign-in">',
        "    <label>Name",
        '      <input name="name" autocomplete="username" autocapitalize="none" spellcheck="false" autofocus></label>',
        '    <label>Password <input name="password" type="password" autocomplete="current-password"></label>',
        '    <label hidden>Once more <input name="again" type="password" autocomplete="new-password"></label>',
        '    <p class="failed" id="failed" role="alert"></p>',
        '    <button type="submit">Sign in</button>',
        "  </form>",
        *other,
        "  <noscript>This page signs in with JavaScript, which is switched off here.</noscript>",
        "</main>",
    ]
    return _document(head, body)


def notice_page(title: str, text: str, to: str, link: str, *, at_once: bool = False, root: str = "./") -> str:
    """Return the HTML of a page that has one text and one link.

    Args:
        title: The heading.
        text: The text.
        to: The link's target, relative to the root.
        link: The link's text.
        at_once: Whether browsers follow the link by themselves.
        root: The dashboard's root, relative to the page; it ends with a slash.
    """
    # The page itself asks, so that browsers send a `SameSite=Strict` cookie even if another site led to the page.
    refresh = [f'<meta http-equiv="refresh" content="0; url={root}{escape(to)}">'] if at_once else []
    body = [
        '<main class="login" id="page">',
        f'  <h1><img src="{root}static/icon.svg" alt="" width="40" height="40"> {escape(title)}</h1>',
        *([f"  <p>{escape(text)}</p>"] if text else []),
        f'  <p><a href="{root}{escape(to)}">{escape(link)}</a></p>',
        "</main>",
    ]
    return _document([*_head(f"{title} – {_NAME}", "", root), *refresh], body)


@cache
def imported(module: str, folder: Path | None, *, later: bool = False) -> tuple[str, ...]:
    """Return the places of the modules that a module imports, all the way down, so that none waits for another's text.

    Args:
        module: The module's place, relative to the dashboard's root: in `static` or in `APP/static`.
        folder: The folder that `APP/static` is.
        later: Whether to include those that are imported only when they are needed, by `import("./other.js")`, and
            files whose address is had by `import.meta.resolve("./other.css")`.
    """
    found = [module]
    for place in found:
        where, _, name = place.partition("static/")
        path = STATIC / name if where == "" else folder / name if folder is not None else None
        text = path.read_text("utf-8") if path is not None and path.is_file() else ""
        names = [*_IMPORT.findall(text), *(_LATER.findall(text) if later else ())]
        targets = (posixpath.normpath(posixpath.join(posixpath.dirname(place), each)) for each in names)
        found += [target for target in dict.fromkeys(targets) if target not in found]
    return tuple(found[1:])


def _import_map(root: str, modules: Iterable[str], address: Callable[[str], str]) -> str:
    """Return the import map that adds the versions to the addresses of modules."""
    base = root or "./"
    addresses = {f"{base}{module}": f"{base}{address(module)}" for module in dict.fromkeys(modules)}
    imports = {module: versioned for module, versioned in addresses.items() if module != versioned}
    return msgspec.json.encode({"imports": imports}).decode().replace("<", "\\u003c")


def _header(title: str, root: str, icon: str) -> Iterator[str]:
    yield '<header class="top">'
    yield '  <button type="button" class="menu" popovertarget="places">Menu</button>'
    home = f'<a class="brand" href="{root or "./"}" aria-label="{_NAME}">'
    yield f'  {home}<img src="{icon}" alt="" width="28" height="28">'
    yield f"    <span>{_NAME}</span></a>"
    yield f"  <h1>{escape(title)}</h1>"
    yield '  <div class="states" id="states" role="group" aria-label="Connections"></div>'
    yield '  <button type="button" class="search" id="search" aria-haspopup="dialog">Search <kbd>/</kbd></button>'
    yield "</header>"


def _places(current: str, entries: Sequence[Entry], root: str, visitor: Visitor) -> Iterator[str]:
    """Yield the navigation. On narrow screens it is a popover, which needs no script."""
    yield '<nav class="places side" id="places" popover aria-label="Views">'
    for section, members in groupby(entries, key=lambda entry: entry.section):
        name = f' aria-label="{escape(section)}"' if section else ""
        if section:
            yield f'  <p class="section" aria-hidden="true">{escape(section)}</p>'
        yield f"  <ul{name}>"
        for entry in members:
            here = ' aria-current="page"' if entry.path == current else ""
            yield f'    <li><a href="{escape(root + entry.path) or "./"}"{here}>{escape(entry.title)}</a></li>'
        yield "  </ul>"
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in _THEMES)
    yield f'  <label class="theme"><span>Theme</span><select id="theme">{options}</select></label>'
    yield from _who(visitor)
    yield "</nav>"


def _who(visitor: Visitor) -> Iterator[str]:
    """Yield the signed-in user, and the button for signing out."""
    user = visitor.user
    if not visitor.has_login:
        if user.role < Role.ADMIN:
            yield '  <p class="who">Read-only</p>'
        return
    name = escape(user.name) if user.name else "shared password"
    roles = [] if user.role is Role.MEMBER else [user.role.label]
    roles += sorted({role.name for role in user.apps.values()})
    yield f'  <p class="who"><span><bdi>{name}</bdi>, {escape(", ".join(roles) or user.role.label)}</span>'
    yield '    <button type="button" id="sign-out">Sign out</button></p>'


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


def _head(title: str, description: str, root: str, address: Callable[[str], str] = str) -> list[str]:
    about = [f'<meta name="description" content="{escape(description)}">'] if description else []
    return [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        *about,
        f"<title>{escape(title)}</title>",
        f'<link rel="icon" href="{root}{address("static/icon.svg")}" type="image/svg+xml">',
        *(f'<link rel="stylesheet" href="{root}{address(f"static/{name}.css")}">' for name in _STYLES),
        # No module: it runs before anything is drawn, so that no page flashes in the other theme.
        f'<script src="{root}{address("static/theme.js")}"></script>',
    ]
