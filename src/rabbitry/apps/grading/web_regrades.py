"""The page's routes for marking again: a dry run, the beginning of a run, and what became of earlier ones.

The dry run is the command's, in a process of its own: it marks in the sandbox, takes minutes, and can be killed when
the dashboard ends. A run that was begun here is done by a coordinator, which has the records and the files, and goes on
with it after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json, decode_object
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import Regraded, RegradeRun, Regrades, RegradeTrial
from rabbitry.apps.grading.changing import Change
from rabbitry.apps.grading.exceptions import SandboxUnavailable
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import now, number, time_of
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.people import COORDINATOR, person_of
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.parent import DATABASE, RECORDS_FOLDER

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.stages import Wiring

Audited: TypeAlias = Callable[[str, str, str], contextlib.AbstractAsyncContextManager[None]]
_BROKER: Final = "RABBITRY_BROKER"
MOST_SHOWN: Final = 500
"""Changes and failures of a dry run that are kept in memory."""
_LONGEST_LINE: Final = 2_000_000
"""Bytes of a line of the dry run: it has the old and the new feedback."""
_MOST_SAID: Final = 1000
"""Bytes of the last line of a dry run that failed."""
_PATIENCE: Final = 5.0
"""Seconds that a dry run has to end when the dashboard does."""

_logger = logging.getLogger(__name__)


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The submissions to mark again, as the page sends them. since: a time with an offset from UTC; null for all."""

    module: str
    since: str | None = None
    student: str | None = None
    all_attempts: bool = False
    remark: str = ""


@dataclass(slots=True)
class Trial:
    """A dry run. able: the submissions it marks. left_out: reason → how many can't be marked again."""

    wanted: Wanted
    able: int
    left_out: dict[str, int]
    at: str
    is_running: bool = True
    marked: int = 0
    changed: int = 0
    failed: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def take(self, line: dict[str, Any]) -> None:
        """Take a line that the command printed."""
        one = {"id": str(line.get("id")), "student": str(line.get("student"))}
        if "error" in line:
            self.failed += 1
            if len(self.failures) < MOST_SHOWN:
                self.failures.append(one | {"error": str(line["error"])[:1000]})
            return
        self.marked += 1
        if line.get("is_changed"):
            self.changed += 1
            if len(self.changes) < MOST_SHOWN:
                self.changes.append(one | {side: _mark(line.get(side)) for side in ("old", "new")})


class RegradeRoutes:
    """The routes.

    Args:
        wiring: Returns the exchange and course.
        looking: Reads and changes the records.
        files: Returns the kept files of records that are here. Blocks.
        database: The URL of the database; None for the user's.
        url: The broker, over which the dry run asks for records that are elsewhere.
        audited: Writes a change into the audit log: who, the action, and what is changed.
    """

    def __init__(
        self,
        wiring: Callable[[], Awaitable[Wiring]],
        looking: Looking,
        files: Callable[[Database], Files],
        database: str | None,
        url: str,
        audited: Audited,
    ) -> None:
        self._wiring = wiring
        self._looking = looking
        self._files = files
        self._database_url = database
        self._url = url
        self._audited = audited
        self._trials: dict[str, Trial] = {}
        """The last dry run of each module."""
        self._running: asyncio.Task[None] | None = None

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        add = router.add_api_route
        add("/api/regrades", self.runs, responses=answers(Regrades))
        add("/api/regrades", self.start, methods=["POST"], responses=answers(RegradeRun))
        add("/api/regrades/trial", self.start_trial, methods=["POST"], responses=answers(RegradeTrial))
        add("/api/regrades/{run}", self.result, responses=answers(Regraded))

    async def close(self) -> None:
        """End the dry run that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    @needs(Role.ADMIN, COORDINATOR)
    async def runs(self, module: str) -> Response:
        """List a module's runs, the latest first, and the state of its last dry run."""
        name = (await self._known()).module(module).name
        found = await self._looking.read(Look("runs", module=name))
        trial = self._trials.get(name)
        return json_response({"runs": found, "trial": None if trial is None else msgspec.to_builtins(trial)})

    @needs(Role.ADMIN, COORDINATOR)
    async def result(self, run: int) -> Response:
        """Return which marks a run changed, as far as its submissions are confirmed again."""
        return json_response(await self._looking.read(Look("result", number=run)))

    @needs(Role.ADMIN, COORDINATOR)
    async def start(self, request: Request) -> Response:
        """Begin a run, which a coordinator does; one for the same submissions that has not ended goes on."""
        wanted, user, wiring = await self._wanted(request), user_of(request), await self._wiring()
        asked = Change(
            "regrade", person_of(user).who, wanted.remark,
            module=wanted.module, since=wanted.since, student=wanted.student, all_attempts=wanted.all_attempts,
        )  # fmt: skip
        async with self._audited(user.who, "mark again", wanted.module):
            run = await self._looking.change(asked, self._files, wiring.exchange)
        return json_response(run)

    @needs(Role.ADMIN, COORDINATOR)
    async def start_trial(self, request: Request) -> Response:
        """Begin a dry run, one at a time."""
        wanted, known = await self._wanted(request), await self._known()
        if known.module(wanted.module).scheme is None:
            raise UsageError(f"module {wanted.module!r} has no marking scheme on this machine, so nothing can be tried")
        await asyncio.to_thread(_check_sandbox, known)
        asked = Look(
            "regradable", module=wanted.module,
            since=wanted.since, student=wanted.student, all_attempts=wanted.all_attempts,
        )  # fmt: skip
        why = Counter(one["reason"] for one in await self._looking.rows(asked))
        is_away = await self._looking.kept() is None
        if self._running is not None and not self._running.done():  # no await between this look and the next dry run
            raise UsageError("another dry run is under way on this page: wait for its end")
        trial = Trial(wanted, why.pop(None, 0), dict(sorted(why.items())), now())
        self._trials[wanted.module] = trial
        self._running = asyncio.create_task(self._try(trial, is_away=is_away), name=f"dry run {wanted.module}")
        return json_response(msgspec.to_builtins(trial))

    async def _known(self) -> Course:
        return (await self._wiring()).course

    async def _wanted(self, request: Request) -> Wanted:
        try:
            wanted = decode_json(await request.body(), Wanted)
        except Undecodable as error:
            raise UsageError(f"invalid request: {error}") from error
        wanted.module = (await self._known()).module(wanted.module).name
        wanted.since = None if wanted.since is None else time_of(wanted.since)
        wanted.student = (wanted.student or "").strip()[:200] or None
        return wanted

    async def _try(self, trial: Trial, *, is_away: bool) -> None:
        """Run the command's dry run, and take what it prints."""
        wanted = trial.wanted
        arguments = ["--module", wanted.module, "--dry-run", "--json"]
        arguments += [] if wanted.since is None else ["--since", wanted.since]
        arguments += [] if wanted.student is None else [f"--student={wanted.student}"]
        arguments += ["--all-attempts"] if wanted.all_attempts else []
        try:
            with tempfile.TemporaryDirectory(prefix="rabbitry-trial-") as empty:
                trial.error = await self._run(arguments, self._environment(empty if is_away else None), trial.take)
        except OSError as error:
            trial.error = f"the dry run could not be started: {error}"
        except Exception:  # else the page would tell of nothing, and wait for ever
            _logger.exception("the dry run of module %r failed", wanted.module)
            trial.error = "the dry run failed: the dashboard's log says why"
        finally:
            trial.is_running = False

    def _environment(self, empty: str | None) -> dict[str, str]:
        """Return the environment of the command, since a URL's password is no argument.

        empty: an empty folder, if the records are elsewhere: the command finds none, and asks a coordinator as well.
        """
        if empty is not None:
            left = {name: value for name, value in os.environ.items() if name != DATABASE}
            return left | {_BROKER: self._url, RECORDS_FOLDER: empty}
        return os.environ | ({} if self._database_url is None else {DATABASE: self._database_url})

    async def _run(
        self, arguments: Sequence[str], environment: dict[str, str], take: Callable[[dict[str, Any]], None]
    ) -> str | None:
        """Run `grading regrade`. Return what it said last if it failed as a whole; None if it did not."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # else a copy.py in the current folder would be taken for the standard library's
            *("-m", "rabbitry", "grading", "regrade", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 # narrows: both are pipes
        saying = asyncio.create_task(_last_line(process.stderr))
        try:
            async for line in process.stdout:
                with contextlib.suppress(Undecodable):
                    take(decode_object(line))
            code, said = await process.wait(), await saying
        finally:
            saying.cancel()
            await _ended(process)
        # 1: some could not be marked, and each was told.
        return None if code in (0, 1) else said


async def _last_line(reader: asyncio.StreamReader) -> str:
    """Return the end of the last line that is not empty. Reads all, however long lines are: the process waits else."""
    last = b""
    while data := await reader.read(1 << 16):
        last = (last + data)[-_MOST_SAID:]
    lines = last.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a process that has not ended by itself; the sandbox ends with it."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _check_sandbox(course: Course) -> None:
    """Raise SandboxUnavailable if submissions could read what the dashboard's user can. Blocks."""
    from rabbitry.apps.grading.marking.sandbox import confinement

    try:
        confinement(allow_weak=False)
    except SandboxUnavailable as error:
        hint = "; the command `rabbitry grading regrade --dry-run` takes the weak one" if course.weak_sandbox else ""
        raise SandboxUnavailable(f"the page tries submissions only in the strong sandbox: {error}{hint}") from error


def _mark(side: object) -> dict[str, float | None]:
    given = side if isinstance(side, dict) else {}
    return {name: number(given.get(name)) for name in ("mark", "out_of")}
