"""Host monitoring as a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import Panel, Plugin, View

plugin: Final = Plugin(
    name="monitor",
    title="Publish this machine's samples; see statistics.",
    commands="rabbitry.apps.monitor.commands:app",
    until_stopped=("publish", "stats"),
    router="rabbitry.apps.monitor.hosting:router",
    views=(
        View(
            title="Machines",
            module="main.js",
            styles=("monitor.css",),
            description="The machines that publish to this broker, live.",
        ),
    ),
    static=Path(__file__).parent / "static",
    panel=Panel(module="panel.js", styles=("monitor.css",)),
    routes_at_root=True,
    services="rabbitry.apps.monitor.hosting:services",
    joins=True,
    checks="rabbitry.apps.monitor.checks:checks",
)
