"""The assignment correction as a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import Plugin, Trial, View

plugin: Final = Plugin(
    name="grading",
    title="Assignments: submitted, corrected, validated, confirmed.",
    commands="rabbitry.apps.grading.commands:app",
    until_stopped=("demonstrator", "assistant", "coordinator", "run"),
    router="rabbitry.apps.grading.hosting:router",
    views=(
        View(
            title="Assignments",
            module="grading.js",
            styles=("grading.css",),
            description="Assignments: submitted, corrected, validated, confirmed.",
        ),
    ),
    static=Path(__file__).parent / "static",
    trials=(
        Trial(
            title="Submit a file for correction",
            command="grading submit /etc/os-release --student 23200858 --module cloud_computing",
            queue="correction_queue_cc",
        ),
    ),
    services="rabbitry.apps.grading.hosting:services",
)
