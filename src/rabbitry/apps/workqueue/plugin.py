"""The work queue as a plug-in."""

from __future__ import annotations

from typing import Final

from rabbitry.apps import Plugin, Trial

plugin: Final = Plugin(
    name="workqueue",
    title="A hundred thousand messages for any number of consumers.",
    commands="rabbitry.apps.workqueue.commands:app",
    until_stopped=("consume",),
    trials=(
        Trial(title="Put 1,000 messages into a queue", command="workqueue produce --count 1000", queue="worker_queue"),
        Trial(title="Take them out again", command="workqueue consume", queue="worker_queue", consumes=True),
    ),
)
