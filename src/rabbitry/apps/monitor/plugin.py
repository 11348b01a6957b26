"""Host monitoring as a plug-in."""

from typing import Final

from rabbitry.apps import Plugin

plugin: Final = Plugin(
    name="monitor",
    title="Publish this machine's samples; see statistics.",
    commands="rabbitry.apps.monitor.commands:app",
    until_stopped=("publish", "stats"),
)
