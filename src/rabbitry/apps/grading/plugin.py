"""The assignment correction as a plug-in."""

from typing import Final

from rabbitry.apps import Plugin

plugin: Final = Plugin(
    name="grading",
    title="Assignments: submitted, corrected, validated, confirmed.",
    commands="rabbitry.apps.grading.commands:app",
    until_stopped=("demonstrator", "assistant", "coordinator", "run"),
)
