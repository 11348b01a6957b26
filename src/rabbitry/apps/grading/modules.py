"""A course's modules, from a TOML file: their short names, which name their queues, and their marking schemes.

[modules.cloud_computing]
short = "cc"
scheme = "schemes/cloud_computing.toml"     # relative to this file; without it, only the status changes
starter = ["starter/queue.py"]              # files and folders that students began with, for `similar`
blind = { people = 2, rule = "mean", within = 1 }   # people who mark each submission without seeing each other's marks
due = 2026-11-15T23:59:00+01:00             # and further deadlines, see deadlines.py

largest_submission = 1000000                # bytes; must come before the tables
largest_total = 50000000000                 # bytes of all kept files, compressed
undo = 10                                   # seconds in which people can take a decision back; default: 5
student_number = "s?[0-9]{7}"               # a regular expression; default: 1 to 18 digits
submissions_per_hour = 100                 # of a student in a module; default: 100; 0: any number
status_logins = ["office"]                  # logins of the broker that may ask about everything, and for changes
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import platformdirs

from rabbitry._decode import decode_toml
from rabbitry._words import reason
from rabbitry.apps.grading.blind import Blind, blind_of
from rabbitry.apps.grading.deadlines import KEYS as DEADLINE_KEYS
from rabbitry.apps.grading.deadlines import Deadlines, deadlines_of
from rabbitry.apps.grading.message import LONGEST_NAME
from rabbitry.apps.grading.rubric import Criterion, rubric_of
from rabbitry.apps.grading.signatures import Signatures, signatures_of
from rabbitry.exceptions import Undecodable, UsageError

LARGEST_SUBMISSION: Final = 10_000_000
"""The default limit of a submitted file, in bytes."""
_SHORT: Final = re.compile(r"[a-z0-9_-]{1,32}")
LARGEST_TOTAL: Final = 100_000_000_000
"""The default limit of all kept files in a folder, in bytes."""
PER_HOUR: Final = 100
"""Submissions of a student in a module within an hour, unless the configuration has another number."""
UNDO: Final = 5.0
"""Seconds in which a decision can be taken back, unless the configuration has others."""
_LONGEST_UNDO: Final = 3600
_KEYS: Final = (
    "modules",
    "largest_submission",
    "largest_total",
    "weak_sandbox",
    "student_number",
    "signatures",
    "undo",
    "status_logins",
    "submissions_per_hour",
)
_MODULE_KEYS: Final = ("short", "scheme", "rubric", "starter", "blind")
VARIABLE: Final = "RABBITRY_GRADING"
"""The environment variable that names the configuration file."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module. short: the suffix of its queue and routing key. scheme: its marking scheme's file.

    deadlines: None if it has none: then each student's latest attempt counts. rubric: the criteria by which people
    judge; empty if they give a mark as they like. starter: code that students began with. blind: how several people
    mark each submission; None if one does.
    """

    name: str
    short: str
    scheme: Path | None = None
    deadlines: Deadlines | None = None
    rubric: tuple[Criterion, ...] = ()
    starter: tuple[Path, ...] = ()
    blind: Blind | None = None

    @property
    def key(self) -> str:
        """The routing key for its demonstrators."""
        return f"demonstrator_{self.short}"

    @property
    def queue(self) -> str:
        """The queue of its submissions."""
        return f"correction_queue_{self.short}"


def _originals() -> dict[str, Module]:
    known = (Module("cloud_computing", "cc"), Module("data_mining", "dm"))
    return {module.name: module for module in known}


@dataclass(frozen=True, slots=True)
class Course:
    """The modules by name, by default those of the original programs.

    student_number: a regular expression for students' numbers; None for digits. signatures: the roles' public keys;
    None if nobody signs. undo: the seconds in which a person's decision can be taken back at least. status_logins: the
    broker's logins that may ask a coordinator about everything, and for changes; with None, everybody who reaches the
    queue may ask for the status of a submission, and nobody for more.
    per_hour: the submissions of a student in a module that are taken within an hour; None for any number.
    """

    modules: dict[str, Module] = field(default_factory=_originals)
    largest_submission: int = LARGEST_SUBMISSION
    weak_sandbox: bool = False
    student_number: str | None = None
    largest_total: int = LARGEST_TOTAL
    signatures: Signatures | None = None
    undo: float = 0.0
    status_logins: tuple[str, ...] | None = None
    per_hour: int | None = None

    def module(self, name: str) -> Module:
        """Return a module. Raises UsageError, which lists the known modules."""
        found = self.modules.get(name)
        if found is None:
            raise UsageError(f"unknown module {name!r}: known modules: {', '.join(self.modules)}")
        return found

    def rubric(self, module: str, role: str) -> tuple[Criterion, ...]:
        """Return the criteria by which a role's people judge a module; none if they give no mark, or a free one."""
        found = self.modules.get(module)
        return found.rubric if found is not None and role == "demonstrator" else ()

    def blind(self, module: str, role: str) -> Blind | None:
        """Return how several people of a role mark each submission of a module; None if one decides."""
        found = self.modules.get(module)
        return found.blind if found is not None and role == "demonstrator" else None


def load_course(path: Path | None = None) -> Course:
    """Read the configuration: from `path`, else RABBITRY_GRADING, else the user's file if there is one.

    Raises UsageError with the file, the line if known, and the reason.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    file = named or platformdirs.user_config_path("rabbitry") / "grading.toml"
    try:
        data = decode_toml(file.read_bytes())
    except FileNotFoundError as error:
        if named is None:
            return Course(undo=UNDO, per_hour=PER_HOUR)
        raise UsageError(f"{file}: no such file") from error
    except (OSError, Undecodable) as error:
        raise UsageError(f"{file}: {reason(error)}") from error
    return _course(data, file)


def _course(data: dict[str, Any], file: Path) -> Course:
    if unknown := sorted(set(data) - set(_KEYS)):
        raise UsageError(f"{file}: unknown key {unknown[0]!r}; use {', '.join(_KEYS)}")
    largest, total = (
        _bytes(data.get(name, default), name, file)
        for name, default in (("largest_submission", LARGEST_SUBMISSION), ("largest_total", LARGEST_TOTAL))
    )
    weak = data.get("weak_sandbox", False)
    if not isinstance(weak, bool):
        raise UsageError(f"{file}: weak_sandbox is {weak!r}, which is neither true nor false")
    number = _student_number(data.get("student_number"), file)
    undo = _seconds(data.get("undo", UNDO), file)
    per_hour = _per_hour(data.get("submissions_per_hour", PER_HOUR), file)
    logins = _logins(data.get("status_logins"), file)
    tables = data.get("modules")
    where = f"{file}: [signatures]"
    if tables is None:
        found = signatures_of(data.get("signatures"), list(_originals()), where)
        return Course(
            largest_submission=largest,
            weak_sandbox=weak,
            student_number=number,
            largest_total=total,
            signatures=found,
            undo=undo,
            status_logins=logins,
            per_hour=per_hour,
        )
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f"{file}: modules must be tables, [modules.NAME]")
    modules = {name: _module(name, table, file) for name, table in tables.items()}
    shorts = [module.short for module in modules.values()]
    for module in modules.values():
        if shorts.count(module.short) > 1:
            raise UsageError(f"{file}: two modules have the short name {module.short!r}")
    signatures = signatures_of(data.get("signatures"), list(modules), where)
    return Course(modules, largest, weak, number, total, signatures, undo, logins, per_hour)


def _bytes(value: object, name: str, file: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{file}: {name} is {value!r}, which is not a number of bytes")
    return value


def _seconds(value: object, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_UNDO:
        raise UsageError(f"{file}: undo is {value!r}: write 0 to {_LONGEST_UNDO} seconds")
    return float(value)


def _per_hour(value: object, file: Path) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{file}: submissions_per_hour is {value!r}, which is not a number of submissions")
    return value or None


def _logins(value: object, file: Path) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise UsageError(f"{file}: status_logins is {value!r}, which is no list of the broker's logins")
    return tuple(value)


def _student_number(pattern: object, file: Path) -> str | None:
    if pattern is None:
        return None
    if not isinstance(pattern, str) or not pattern:
        raise UsageError(f"{file}: student_number is {pattern!r}, which is not a regular expression")
    import regex  # imported late: few courses need it

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise UsageError(f"{file}: student_number {pattern!r} is not a regular expression: {error}") from error
    return pattern


def _module(name: str, table: object, file: Path) -> Module:
    where = f"{file}: [modules.{name}]"
    if not name.strip() or len(name) > LONGEST_NAME:
        raise UsageError(f"{where}: a module's name must have 1 to {LONGEST_NAME} characters")
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table")
    if unknown := sorted(set(table) - {*_MODULE_KEYS, *DEADLINE_KEYS}):
        names = ", ".join((*_MODULE_KEYS, *DEADLINE_KEYS))
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; use {names}")
    short, scheme = table.get("short"), table.get("scheme")
    if not isinstance(short, str) or not _SHORT.fullmatch(short):
        raise UsageError(f"{where}: short is {short!r}: use 1 to 32 of a-z, 0-9, - and _")
    if scheme is not None and not isinstance(scheme, str):
        raise UsageError(f"{where}: scheme is {scheme!r}, which is not a file's name")
    path = None if scheme is None else file.parent / scheme
    starter = table.get("starter", [])
    if not isinstance(starter, list) or not all(isinstance(one, str) and one for one in starter):
        raise UsageError(f"{where}: starter is {starter!r}, which is no list of files and folders")
    begun = tuple(file.parent / one for one in starter)
    rubric, blind = rubric_of(table.get("rubric", []), where), blind_of(table.get("blind"), where)
    return Module(name, short, path, deadlines_of(table, where), rubric, begun, blind)
