"""The work queue as a plug-in."""

from __future__ import annotations

from typing import Final

from rabbitry.apps import Plugin

plugin: Final = Plugin(
    name="workqueue",
    title="A hundred thousand messages for any number of consumers.",
    commands="rabbitry.apps.workqueue.commands:app",
    until_stopped=("consume",),
)
