"""`rabbitry web users`: the users of the dashboard, their roles and passwords."""

from __future__ import annotations

import enum
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Json, UsersFile, read_password
from rabbitry.runtime.output import one_line

VARIABLE: Final = "RABBITRY_WEB_PASSWORD"
"""The environment variable with the password of a new user."""


class RoleName(enum.StrEnum):
    """The roles, as the option --role takes them."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
Given = Annotated[RoleName, typer.Option("--role", case_sensitive=False, help="What they may do.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"The file with the password, on its first line; else {VARIABLE}, else it is asked for.",
        show_default=False,
    ),
]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Add, remove and list the users of the dashboard.")


@app.command()
def add(name: Name, role: Given, password_file: PasswordFile = None, users: UsersFile = None) -> None:
    """Add a user, or change the role and password of one. A dashboard that runs takes it within seconds.

    Roles in apps stay, such as that of a student.

    viewer: sees everything. operator: also pauses, resumes, replays and looks at messages. admin: also purges, deletes,
    declares and binds.

    Example: rabbitry web users add alice --role operator
    """
    from rabbitry.apps.passwords import hash_password
    from rabbitry.apps.users_file import Account, changed_users, check_name, check_password, usual_file

    check_name(name)
    password = check_password(_password(name, password_file))
    file = users or usual_file()
    hashed = hash_password(password)
    with changed_users(file) as known:
        is_new = name not in known
        # Without the role in an app, the role in the dashboard would count there: a student would see everybody's work.
        known[name] = Account(role.value, hashed, {} if is_new else known[name].apps)
    print(f"{'added' if is_new else 'changed'} user {name!r} with the role {role.value} in {file}")


@app.command()
def remove(name: Name, users: UsersFile = None) -> None:
    """Remove a user, who is signed out within seconds.

    Example: rabbitry web users remove alice
    """
    from rabbitry.apps.users_file import changed_users, has_users, usual_file

    file = users or usual_file()
    if not has_users(file):
        raise UsageError(f"there is no user {name!r}: {file} does not exist")
    with changed_users(file) as known:
        if name not in known:
            raise UsageError(f"there is no user {name!r} in {file}; `rabbitry web users list` lists them")
        del known[name]
    print(f"removed user {name!r} from {file}")


@app.command("list")
def show(users: UsersFile = None, *, as_json: Json = False) -> None:
    """List the users and their roles, those in apps included.

    Example: rabbitry web users list --json
    """
    from rabbitry.apps.users_file import has_users, read_users, usual_file

    file = users or usual_file()
    known = read_users(file) if has_users(file) or users is not None else {}
    for name, account in sorted(known.items()):
        apps = {app: in_app.name for app, in_app in account.apps.items()}
        if as_json:
            print(json.dumps({"name": name, "role": account.role} | ({"apps": apps} if apps else {})))
        else:
            print(one_line("  ".join([f"{account.role:<9} {name}", *(f"{app}: {of}" for app, of in apps.items())])))


def _password(name: str, file: Path | None) -> str:
    if file is not None:
        return read_password(file)
    if given := os.environ.get(VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise UsageError(f"missing password for user {name!r}: set {VARIABLE} or pass --password-file FILE")
    typed: str = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    return typed
