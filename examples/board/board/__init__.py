"""A board of notes: an app for Rabbitry, with commands, a page, and a service of `rabbitry up`."""

from pathlib import Path

from rabbitry.apps import Plugin, View

plugin = Plugin(
    name="board",
    title="Notes that everybody sees.",
    commands="board.commands:app",
    router="board.page:router",
    views=(View(title="Board", module="board.js"),),
    static=Path(__file__).parent / "static",
    services="board.commands:services",
)
