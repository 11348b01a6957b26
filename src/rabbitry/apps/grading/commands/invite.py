"""`rabbitry grading invite`: accounts for a course's people, with single-use links or first passwords."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, urlsplit

import typer

from rabbitry._words import reason
from rabbitry.apps.grading.commands.options import Config
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Json, UsersFile
from rabbitry.runtime.output import one_line, print_json, say, warn

if TYPE_CHECKING:
    from rabbitry.apps import AppRole
    from rabbitry.apps.grading.modules import Course

_DAY: Final = 24 * 3600.0
_MOST: Final = 10_000
"""People in one list."""


class CourseRole(StrEnum):
    """The values of `--role`."""

    STUDENT = "student"
    DEMONSTRATOR = "demonstrator"
    ASSISTANT = "assistant"
    COORDINATOR = "coordinator"
    ADMIN = "admin"


class SignIn(StrEnum):
    """The values of `--sign-in`."""

    LINK = "link"
    PASSWORD = "password"  # noqa: S105 # a word
    OIDC = "oidc"


app: typer.Typer = typer.Typer()
FirstSignIn = Annotated[
    SignIn,
    typer.Option(
        "--sign-in",
        help="What the person signs in with first: a link, a first password, or the OpenID Connect provider alone.",
    ),
]


@app.command("invite")
def invite(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name to sign in with.", show_default=False)
    ] = None,
    role: Annotated[CourseRole, typer.Option("--role", help="The role in the course.")] = CourseRole.STUDENT,
    student: Annotated[
        str | None,
        typer.Option("--student", metavar="NUMBER", help="The student's number. Default: NAME.", show_default=False),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option("--module", metavar="NAME", help="A demonstrator's module; may be repeated.", show_default=False),
    ] = None,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE", help="Invite students: lines NAME or NAME,NUMBER (CSV).", show_default=False
        ),
    ] = None,
    sign_in: FirstSignIn = SignIn.LINK,
    days: Annotated[float, typer.Option("--days", min=0.001, max=365, help="How long they hold.")] = 7,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The dashboard in the links.")] = (
        "http://127.0.0.1:8003/"
    ),
    users: UsersFile = None,
    config: Config = None,
    *,
    as_json: Json = False,
) -> None:
    """Make accounts for the course's page, and print for each a link with which its owner sets the password, once.

    Whoever has the link can use it: send it to its owner alone. For an existing name it sets the role anew, and an
    earlier link ends; the password holds until the new link is used. A first password (--sign-in password) is typed on
    the page instead, which asks for a password of one's own then.

    Examples:
    rabbitry grading invite 23200858
    rabbitry grading invite ann --role demonstrator --module cloud_computing
    rabbitry grading invite --list students.csv --url https://course.example.org/ > links.txt
    """
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.users_file import usual_file

    course = load_course(config)
    place = _address(url)
    if (name is None) == (list_ is None):
        raise UsageError("pass either NAME or --list FILE")
    wanted = (
        _listed(list_, role, student, modules, course)
        if list_ is not None
        else {str(name): _app_role(str(name), role, student, modules or [], course)}
    )
    file = users or usual_file()
    for one, token in _invited(file, wanted, days * _DAY, sign_in).items():
        shown = f"{place}login/#name={quote(one, safe='')}&invitation={token}" if sign_in is SignIn.LINK else token
        if as_json:
            print_json({"name": one, "role": role.value} | ({sign_in.value: shown} if token else {}))
        elif token:
            print(one_line(f"{one}  {shown}") if list_ is not None else shown)
    say(_HOLDS[sign_in].format(days=days, place=place) + f"; the accounts are in {file}")


_HOLDS: Final = {
    SignIn.LINK: "each link sets a password once, within {days:g} days",
    SignIn.PASSWORD: "each first password holds once, within {days:g} days, on {place}login/",
    SignIn.OIDC: "these people sign in through the OpenID Connect provider of {place}",
}


def _invited(file: Path, wanted: Mapping[str, AppRole | None], seconds: float, sign_in: SignIn) -> dict[str, str]:
    """Make or change accounts, each with a new invitation. Return the invitations' tokens by name; empty without one.

    Args:
        file: The file of users.
        wanted: Name → role in the course; None for an admin of the dashboard.
        seconds: How long the invitations hold.
        sign_in: What the tokens are; people who sign in through the provider alone get none.
    """
    import msgspec

    from rabbitry.apps.grading.people import APP
    from rabbitry.apps.users_file import Account, changed_users, invited

    tokens: dict[str, str] = {}
    with changed_users(file) as known:
        for one, in_course in wanted.items():
            account = known.get(one, Account("member", ""))
            if in_course is None:
                account = msgspec.structs.replace(account, role="admin")
            else:
                account = msgspec.structs.replace(account, apps={**account.apps, APP: in_course})
            if sign_in is SignIn.OIDC:
                known[one], tokens[one] = msgspec.structs.replace(account, invitation=None), ""
            else:
                known[one], tokens[one] = invited(account, seconds, is_typed=sign_in is SignIn.PASSWORD)
        has_admin = any(account.role == "admin" for account in known.values())
        admins = [one for one in wanted if known[one].role == "admin" and wanted[one] is not None]
    for one in admins:
        warn(one_line(f"{one!r} is an admin of the dashboard, and has all rights in the course too"))
    if not has_admin and not os.environ.get("APP_PASSWORD"):
        warn("nobody is an admin of this dashboard: add one with `rabbitry web users add NAME --role admin`")
    return tokens


def _app_role(name: str, role: CourseRole, student: str | None, modules: list[str], course: Course) -> AppRole | None:
    """Return a person's role in the course; None for an admin, whose rights are the dashboard's. Raises UsageError."""
    from rabbitry.apps import AppRole
    from rabbitry.apps.grading.students import student_number
    from rabbitry.apps.users_file import check_name

    check_name(name)
    if student is not None and role is not CourseRole.STUDENT:
        raise UsageError(f"--student is only for students, and {name!r} is invited as {role.value}")
    if modules and role is not CourseRole.DEMONSTRATOR:
        raise UsageError(f"--module is only for demonstrators, and {name!r} is invited as {role.value}")
    if role is CourseRole.ADMIN:
        return None
    if role is CourseRole.STUDENT:
        return AppRole(role.value, (str(student_number(student or name, course)),))
    if role is CourseRole.DEMONSTRATOR and not modules:
        raise UsageError(f"missing --module: name the modules of the demonstrator {name!r}")
    return AppRole(role.value, tuple(course.module(module).name for module in modules))


def _listed(
    file: Path, role: CourseRole, student: str | None, modules: list[str] | None, course: Course
) -> dict[str, AppRole | None]:
    """Return the students of a list by name. Raises UsageError, with the line, before anybody is invited."""
    if role is not CourseRole.STUDENT or student is not None or modules:
        raise UsageError("--list invites students: it can't be combined with --role, --student or --module")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = [(number, row) for number, row in enumerate(csv.reader(opened), 1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{file}: {why}") from error
    if not 0 < len(rows) <= _MOST:
        raise UsageError(f"{file}: it has {len(rows)} lines: 1 to {_MOST} can be invited at once")
    found: dict[str, AppRole | None] = {}
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) > 2 or cells[0] in found:
            why = f"{cells[0]!r} is in it twice" if cells[0] in found else "write NAME or NAME,NUMBER"
            raise UsageError(f"{file}, line {number}: {why}")
        try:
            found[cells[0]] = _app_role(cells[0], role, cells[1] if len(cells) == 2 else None, [], course)
        except UsageError as error:
            raise UsageError(f"{file}, line {number}: {error}") from error
    return found


def _address(url: str) -> str:
    """Return the dashboard's address with a slash at its end. Raises UsageError."""
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise UsageError(f"--url {url!r} is not the address of a dashboard: write https://HOST/")
    return url if url.endswith("/") else f"{url}/"
