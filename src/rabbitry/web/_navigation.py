"""The dashboard's navigation: its own views, and those of the apps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rabbitry.apps import View

OVERVIEW: Final = View(
    title="Overview",
    module="overview/overview.js",
    styles=("overview/overview.css",),
    description="What flows through the broker, live, and what needs attention.",
)


def _table(title: str, description: str) -> View:
    """Return the view of one of the broker's tables."""
    name = title.lower()
    return View(
        title=title, module=f"broker/{name}.js", styles=("broker/broker.css",), path=name, description=description
    )


WAY: Final = View(
    title="Messages",
    module="way/way.js",
    styles=("way/way.css",),
    path="way",
    description="One message's way through every stage: when, where, with what result, and what it led to.",
)

FLOWS: Final = View(
    title="Flows",
    module="flows/flows.js",
    styles=("flows/flows.css",),
    path="flows",
    description="Each app's stages in order: messages waiting, in hand and failed, and the workers.",
)

OWN: Final[dict[str, tuple[View, ...]]] = {
    "": (OVERVIEW, FLOWS, WAY),
    "Broker": (
        _table("Queues", "The broker's queues: what waits in them, what flows through them, and who consumes them."),
        _table("Exchanges", "The broker's exchanges, and what is published to them."),
        _table("Connections", "The programs that are connected to the broker."),
        _table("Channels", "The channels of the broker's connections."),
        _table("Consumers", "Who consumes which queue of the broker."),
        View(
            title="Dead letters",
            module="dead/dead.js",
            styles=("dead/dead.css",),
            path="dead",
            description="Messages that failed for good, by reason and error: look at them, replay, edit or drop them.",
        ),
        View(
            title="Raw messages",
            module="raw/raw.js",
            styles=("broker/broker.css", "raw/raw.css"),
            path="raw",
            description="A live sample of the messages that are published to an exchange.",
        ),
        _table("Audit", "What was changed through the dashboard: by whom, when, and with what result."),
    ),
}
"""Section of the navigation → the dashboard's own views in it, whose modules lie in the dashboard's static folder."""
APPS: Final = "Apps"
"""The section with the views of the apps."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A link of the navigation. path: relative to the dashboard's root; it ends with a slash, or is empty."""

    section: str
    title: str
    path: str


def navigation(apps: Iterable[tuple[str, str]], *, with_own: bool = True) -> list[Entry]:
    """Return the entries: the dashboard's own views, then those of the apps by title.

    Args:
        apps: Title and place of each app's view.
        with_own: Whether the dashboard's own views are in it.
    """
    own = [Entry(section, view.title, own_place(view)) for section, views in OWN.items() for view in views]
    return (own if with_own else []) + [Entry(APPS, title, place) for title, place in sorted(apps)]


def own_place(view: View) -> str:
    """Return the place of one of the dashboard's own views."""
    return f"{view.path}/" if view.path else ""
