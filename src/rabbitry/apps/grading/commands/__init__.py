"""`rabbitry grading`: the roles, and what students and the course's staff need."""

from __future__ import annotations

import typer

from rabbitry.apps.grading.commands import inbox, records, roles, students

app: typer.Typer = typer.Typer()
app.add_typer(students.app)
app.add_typer(roles.app)
app.add_typer(records.app)
app.add_typer(inbox.app, name="inbox", help="What waits for people to decide.", no_args_is_help=True)
