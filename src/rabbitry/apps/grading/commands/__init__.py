"""`rabbitry grading`: the roles, and the commands of students and staff."""

from __future__ import annotations

import typer

from rabbitry.apps.grading.commands import (
    accept,
    files,
    inbox,
    invite,
    keys,
    records,
    regrade,
    release,
    requests,
    roles,
    similar,
    stats,
    students,
)

app: typer.Typer = typer.Typer()
app.add_typer(students.app)
app.add_typer(roles.app)
app.add_typer(records.app)
app.add_typer(files.app)
app.add_typer(regrade.app)
app.add_typer(accept.app)
app.add_typer(release.app)
app.add_typer(similar.app)
app.add_typer(stats.app)
app.add_typer(invite.app)
app.add_typer(keys.app)
app.add_typer(inbox.app, name="inbox", help="Submissions that wait for a person's decision.", no_args_is_help=True)
app.add_typer(requests.app, name="requests", help="Requests for another look at a mark.", no_args_is_help=True)
