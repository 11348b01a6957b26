"""A marking scheme: the commands and tests that a module's submissions are run with, and their points.

The format is described in docs/marking.md.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from rabbitry._installing import how_to_install
from rabbitry._words import reason
from rabbitry.apps.grading.exceptions import SchemeInvalid
from rabbitry.apps.grading.marking._reporter import checks_in
from rabbitry.apps.grading.marking._toml_lines import Place, find_line, syntax_error
from rabbitry.exceptions import RabbitryError

_T = TypeVar("_T")
_MIB = 1024 * 1024
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": _MIB, "GiB": 1024 * _MIB}
_SIZE = re.compile(r"(\d+) *(B|KiB|MiB|GiB)")
_PATH = re.compile(r" - at `(key in )?\$([^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MAX_SCHEME: Final = _MIB


class Size(int):
    """Bytes: in a scheme an integer, or a number with a unit as in `"64 MiB"`."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one part's run. Sizes are in bytes."""

    cpu_seconds: Annotated[int, Meta(ge=1, le=3600)] = 10
    """For each process."""
    wall_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    memory: Size = Size(512 * _MIB)
    """For all processes together, and for each."""
    processes: Annotated[int, Meta(ge=4, le=4096)] = 64
    """Threads included; the sandbox itself may take two of them."""
    file_size: Size = Size(16 * _MIB)
    """For each file that is written."""
    disk: Size = Size(64 * _MIB)
    """For all files together, the submission's own included."""
    output: Size = Size(64 * 1024)
    """For stdout and stderr together."""


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """The expected stdout of a command; one of the three is set."""

    exact: str | None = None
    """The whole output; white space at the ends of lines and of the output is ignored."""
    contains: str | None = None
    regex: str | None = None
    """Found somewhere in the output (`re.search`, with MULTILINE)."""


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a scheme: a command, a file of tests for pytest, or a file of checks for a notebook."""

    name: str
    points: Annotated[float, Meta(gt=0, le=1_000_000)]
    bonus: bool = False
    """Whether the points come on top of the scheme's maximum."""
    command: list[str] | str | None = None
    """The arguments, or a command line for `sh -c`."""
    stdin: str = ""
    expect: Expect | None = None
    exit: Annotated[int, Meta(ge=0, le=255)] = 0
    """The expected exit code."""
    pytest: str | None = None
    """A file beside the scheme; its tests share the points."""
    notebook: str | None = None
    """A file beside the scheme; the checks in its cells run after the cells of the notebook, and share the points."""
    hidden: bool = False
    """Whether the feedback has only the points, together with those of the other hidden parts."""
    limits: Limits = Limits()


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The `[scheme]` table."""

    name: str
    file: str | None = None
    """The file name for a submission of one file; its own name by default."""
    hidden: bool = False
    """The default of the parts."""
    reveal: Annotated[datetime, Meta(tz=True)] | None = None
    """When hidden parts are shown like others in what is marked from then on."""
    limits: Limits = Limits()


class Scheme(Struct, frozen=True, forbid_unknown_fields=True):
    """A checked marking scheme. `folder` holds its test files."""

    scheme: Head
    part: Annotated[list[Part], Meta(min_length=1, max_length=1000)]
    folder: Path = Path()

    @property
    def name(self) -> str:
        """The scheme's title."""
        return self.scheme.name

    @property
    def out_of(self) -> float:
        """The sum of the points of all parts except bonus parts."""
        return float(sum((exact(part.points) for part in self.part if not part.bonus), Decimal(0)))

    def hidden(self, at: datetime) -> frozenset[str]:
        """Return the names of the parts that a feedback does not show at a time."""
        is_shown = self.scheme.reveal is not None and at >= self.scheme.reveal
        return frozenset() if is_shown else frozenset(part.name for part in self.part if part.hidden)


def exact(points: float) -> Decimal:
    """Return points as the decimal number written in the scheme: as floats, 0.1 and 0.2 do not add up to 0.3."""
    return Decimal(repr(points))


class _Wrong(RabbitryError):
    """An error at a place in the document."""

    def __init__(self, place: Place, why: str) -> None:
        super().__init__(why)
        self.place = place


def load_scheme(path: Path) -> Scheme:
    """Read and check a marking scheme. Blocks.

    Raises SchemeInvalid, naming the file, the line and the reason.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise SchemeInvalid(f"{path}: can't read it: not a regular file")
        with path.open("rb") as file:
            raw = file.read(_MAX_SCHEME + 1)
        if len(raw) > _MAX_SCHEME:
            raise SchemeInvalid(f"{path}:1: larger than 1 MiB, the limit for a marking scheme")
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise SchemeInvalid(f"{path}: can't read it: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SchemeInvalid(f"{path}:{line}: not UTF-8 text") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, why = syntax_error(text, error)
        raise SchemeInvalid(f"{path}:{line}: {why}") from error
    except RecursionError as error:
        raise SchemeInvalid(f"{path}:1: nested too deeply") from error
    except ValueError as error:  # a number with thousands of digits
        raise SchemeInvalid(f"{path}:1: {error}") from error
    try:
        return _check(document, path.resolve().parent)
    except _Wrong as error:
        raise SchemeInvalid(f"{path}:{find_line(text, error.place)}: {error}") from error


def _check(document: dict[str, object], folder: Path) -> Scheme:
    if "folder" in document:  # our own field, not one of the file
        raise _Wrong(("folder",), "unknown key `folder`")
    # The scheme's limits are checked before they become defaults of each part, so that an error names the line where
    # they are written.
    head = _convert(document.get("scheme", {}), Head, ("scheme",))
    parts = document.get("part")
    if isinstance(parts, list):
        defaults = document["scheme"].get("limits", {})  # type: ignore[attr-defined]  # a table: Head was made of it
        document["part"] = [_with_defaults(part, defaults, is_hidden=head.hidden) for part in parts]
    scheme = _convert(document, Scheme, ())
    if not head.name.strip():
        raise _Wrong(("scheme", "name"), "`name` is empty")
    if head.file is not None and not _is_file_name(head.file):
        raise _Wrong(("scheme", "file"), "`file` must be a file name without a folder")
    names: set[str] = set()
    for index, part in enumerate(scheme.part):
        if not part.name.strip() or part.name in names:
            why = f"there are two parts named {part.name!r}" if part.name in names else "`name` is empty"
            raise _Wrong(("part", index, "name"), why)
        names.add(part.name)
        _check_part(part, ("part", index), folder, head.file)
    if all(part.bonus for part in scheme.part):
        raise _Wrong(("part", 0, "bonus"), "every part is a bonus: at least one must count for the maximum")
    return msgspec.structs.replace(scheme, folder=folder)


def _is_file_name(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name and len(name) <= 100 and name.isprintable()


def _with_defaults(part: object, defaults: dict[str, object], *, is_hidden: bool) -> object:
    if not isinstance(part, dict):
        return part
    limits = part.get("limits", {})
    return {"hidden": is_hidden, **part, "limits": {**defaults, **limits} if isinstance(limits, dict) else limits}


def _check_part(part: Part, place: Place, folder: Path, file: str | None) -> None:
    given = {"command": part.command, "pytest": part.pytest, "notebook": part.notebook}
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise _Wrong(place, f"part {part.name!r} needs one of `command`, `pytest` and `notebook`")
    if part.command is None:
        for key, value in {"stdin": part.stdin, "expect": part.expect, "exit": part.exit}.items():
            if value:
                raise _Wrong((*place, key), f"`{key}` is for `command`, not for `{kinds[0]}`")
    if part.pytest is not None:
        _check_tests(part.pytest, (*place, "pytest"), folder, {"pytest": "grading"})
    if part.notebook is not None:
        where = (*place, "notebook")
        _check_tests(part.notebook, where, folder, {"nbclient": "notebooks", "ipykernel": "notebooks"})
        if file is None or not file.endswith(".ipynb"):
            raise _Wrong(where, "`notebook` needs the name of the notebook: set `file` of [scheme] to one in .ipynb")
        try:
            text = (folder / part.notebook).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise _Wrong(where, f"{part.notebook!r} can't be read: {reason(error)}") from error
        if not checks_in(text)[1]:
            raise _Wrong(where, f"{part.notebook!r} has no checks: begin each with a line `# %% TITLE`")
    if part.command is not None and (not part.command or not part.command[0].strip()):
        raise _Wrong((*place, "command"), "`command` is empty")
    if any("\0" in word for word in part.command or ()):
        raise _Wrong((*place, "command"), "`command` contains a NUL character")
    if part.expect is not None:
        _check_expect(part.expect, (*place, "expect"))


def _check_expect(expect: Expect, place: Place) -> None:
    if sum(value is not None for value in (expect.exact, expect.contains, expect.regex)) != 1:
        raise _Wrong(place, "`expect` needs one of `exact`, `contains` and `regex`")
    if expect.contains == "":
        raise _Wrong((*place, "contains"), "`contains` is empty, so everything would pass")
    if expect.regex is not None:
        try:
            re.compile(expect.regex, re.MULTILINE)
        except (re.error, RecursionError, OverflowError) as error:
            raise _Wrong((*place, "regex"), f"not a regular expression: {error}") from error


def _check_tests(name: str, place: Place, folder: Path, packages: dict[str, str]) -> None:
    """Check a file of tests. packages: what runs them → the extra that brings it."""
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise _Wrong(place, f"{name!r} is outside the scheme's folder")
        if not file.is_file():
            raise _Wrong(place, f"there is no file {name!r} beside the scheme")
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL in the name, a loop of links
        raise _Wrong(place, f"{name!r} can't be read: {reason(error)}") from error
    if file.suffix != ".py":
        raise _Wrong(place, f"{name!r} does not end in .py")
    prefixes = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    for package, extra in packages.items():
        spec = importlib.util.find_spec(package)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or not any(origin.is_relative_to(prefix) for prefix in prefixes):
            # A sandbox shows this Python's own folders, but not the user's or those of PYTHONPATH.
            why = f"{package} is not installed for {sys.executable}; it comes with {how_to_install(extra)}"
            raise _Wrong(place, why)


def _convert(document: object, cls: type[_T], place: Place) -> _T:
    try:
        return msgspec.convert(document, cls, dec_hook=_decode_size)
    except msgspec.ValidationError as error:
        raise _explain(str(error), place) from error


def _decode_size(cls: type, value: object) -> object:
    if cls is Path:
        return Path()
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        value = int(found[1]) * _UNITS[found[2]]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError('a size must be an integer of bytes, or text such as "64 MiB" (B, KiB, MiB, GiB)')
    if not 1024 <= value <= 1024 * 1024 * _MIB:
        raise ValueError("a size must be between 1 KiB and 1024 GiB")
    return Size(value)


def _explain(message: str, place: Place) -> _Wrong:
    """Split msgspec's message, which ends in a path such as `$.part[1].points`, into place and reason."""
    if found := _PATH.search(message):
        message = message[: found.start()]
        for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", found[2]):
            place = (*place, name or int(index))
    if unknown := _UNKNOWN.fullmatch(message):
        return _Wrong((*place, unknown[1]), f"unknown key `{unknown[1]}`")
    message = message.replace("Object missing required field", "missing key").replace("object", "table")
    message = message.replace("array", "list").replace("Object", "table").replace(" | null", "")
    where = f"`{place[-1]}`: " if place and isinstance(place[-1], str) else ""
    return _Wrong(place, f"{where}{message[0].lower()}{message[1:]}")
