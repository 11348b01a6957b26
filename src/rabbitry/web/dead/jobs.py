"""Replays and drops of dead letters, with a rate, progress, pause and cancel, one at a time for each app."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, TypeAlias

from rabbitry.amqp.client import Connection
from rabbitry.apps import Role
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.flow.wiring.dead_letters import DeadLetter, dead_queue, drop, replay, waiting
from rabbitry.telemetry import MASK, Masking
from rabbitry.web.audit import Audit
from rabbitry.web.dead.selection import Selection, readable
from rabbitry.web.feed.topics import Value

Action: TypeAlias = Literal["replay", "drop"]
State: TypeAlias = Literal["running", "paused", "done", "cancelled", "failed"]
Connected: TypeAlias = Callable[[str], AbstractAsyncContextManager[Connection]]

MOST_KEPT: Final = 50
"""Jobs that are shown, one for each app. The oldest that has ended makes room."""
PASS: Final = 600.0
"""Seconds after which the dead letters in hand go back and are asked for again: RabbitMQ closes the channel of a
consumer that keeps one for 30 minutes."""
_SHOWN_EVERY: Final = 0.2
_LOGGED_EVERY: Final = 2.0
_MOST_PROBLEMS: Final = 20
_MASK: Final = MASK.encode()
_DONE: Final = {"replay": "replayed", "drop": "dropped"}

_logger = logging.getLogger(__name__)


class Job:
    """A replay or a drop.

    Args:
        action: Replay or drop.
        selection: The dead letters.
        who: The user, see `User.who`.
        rate: Dead letters a second at most; None for no limit.
        expected: The number of dead letters that the page counted, for the progress.
        masking: What is masked in the errors by which groups are told apart; the usual fields if it is None.
        body: A body in place of the message's own.
    """

    def __init__(
        self,
        action: Action,
        selection: Selection,
        who: str,
        *,
        rate: int | None = None,
        expected: int | None = None,
        masking: Masking | None = None,
        body: bytes | None = None,
    ) -> None:
        self.action = action
        self.selection = selection
        self.who = who
        self.rate = rate
        self.state: State = "running"
        self.done = 0
        self.problems: list[str] = []
        self.error = ""
        self._expected = expected
        self._masking = masking or Masking()
        self._body = body
        self._since = time.time()
        self._asked = 0
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._is_cancelled = False
        self._pass_is_cut = False
        self._pass_ends = 0.0
        self._slot = 0.0
        """When the next dead letter may go, on the monotonic clock."""

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("done", "cancelled", "failed")

    @property
    def result(self) -> str:
        """The result so far, for the audit log."""
        text = f"{self.done:,} {_DONE[self.action]}"
        if not self.is_over:
            return f"{text} so far"
        if self.problems:
            text += f", {len(self.problems):,} stayed: {readable(self.problems[0])}"
        if self.state == "done":
            return text
        return f"{text}; {self.state}{self.error and f': {self.error}'}"

    def pause(self) -> None:
        """Pause: dead letters in hand return to the queue."""
        if not self.is_over:
            self.state = "paused"
            self._resumed.clear()

    def resume(self) -> None:
        """Resume after a pause."""
        if self.state == "paused":
            self.state = "running"
            self._resumed.set()

    def cancel(self) -> None:
        """End the job once all published messages are confirmed."""
        self._is_cancelled = True
        self._resumed.set()

    def shown(self) -> dict[str, Any]:
        """Return what a page shows."""
        names = ("action", "who", "state", "done", "rate", "error")
        return {
            **{name: getattr(self, name) for name in names},
            "vhost": self.selection.vhost,
            "app": self.selection.app,
            "of": str(self.selection),
            "expected": self._expected,
            "since": self._since,
            "problems": [readable(text) for text in self.problems[:_MOST_PROBLEMS]],
            "stayed": len(self.problems),
        }

    async def run(self, connected: Connected, progress: Callable[[], None]) -> None:
        """Do it, in passes. Each begins with the oldest dead letter, since what is left of a pass goes back.

        Only those that were there at the beginning are looked at: one that fails again comes behind them.
        """
        there: int | None = None
        while True:
            await self._resumed.wait()
            if self._is_cancelled:
                self.state = "cancelled"
                return
            self._pass_is_cut = False
            async with connected(self.selection.vhost) as connection:
                if there is None:
                    there = await waiting(connection, self.selection.app)
                self._pass_ends = time.monotonic() + PASS
                await self._pass(connection, connected, there - self.done, progress)
            if not self._pass_is_cut:
                self.state = "done"
                return

    async def _pass(
        self, connection: Connection, connected: Connected, most: int, progress: Callable[[], None]
    ) -> None:
        before = self.done

        def told(done: int) -> None:
            self.done = before + done
            progress()

        app = self.selection.app
        if self.action == "drop":
            await drop(connection, app, self._takes, told, most=most, go_on=self._go_on)
            return
        async with connected(self.selection.vhost) as over:
            _, problems = await replay(
                connection, app, self._takes, told, most=most, go_on=self._go_on, body=self._body, over=over
            )
        self.problems = list(dict.fromkeys([*self.problems, *problems]))

    def _takes(self, letter: DeadLetter) -> bool:
        if not self.selection.takes(letter, len(letter.body), self._masking):
            return False
        if self._body is not None and self._body.count(_MASK) > letter.body.count(_MASK):
            # Masked text that was edited would put the mask in place of the secret.
            raise UsageError(
                f"the edited body has {MASK!r}, as masked fields are shown, where the message has not: "
                "edit the message's own body"
            )
        return True

    async def _go_on(self) -> bool:
        """Wait until the rate allows the next dead letter; return whether it belongs to this pass."""
        if self.selection.mark is not None and self._asked:
            return False  # copies of one message: only the first
        if self.rate is not None:
            self._slot = max(self._slot + 1 / self.rate, time.monotonic() - 0.05)
            if (early := self._slot - time.monotonic()) > 0.01:
                await asyncio.sleep(early)
        if self._is_cancelled or not self._resumed.is_set() or time.monotonic() > self._pass_ends:
            self._pass_is_cut = True
            return False
        self._asked += 1
        return True


class Jobs:
    """The jobs of a dashboard, by virtual host and app.

    Args:
        connected: Returns a connection to a virtual host, to be entered.
        audit: The log of the jobs.
    """

    def __init__(self, connected: Connected, audit: Audit) -> None:
        self.topic: Value = Value()
        self.topic.role = Role.VIEWER
        self._connected = connected
        self._audit = audit
        self._jobs: dict[tuple[str, str], Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown_at = 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Allow jobs while the block runs, and end them after it."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(set(self._tasks))

    async def start(self, job: Job) -> None:
        """Log a job and start it.

        Raises:
            UsageError: Another job of this app runs.
            RecordsError: The job can't be logged, and is not started.
        """
        key = (job.selection.vhost, job.selection.app)
        other = self._jobs.get(key)
        if other is not None and not other.is_over:
            raise UsageError(
                f"a {other.action} of the dead letters of {other.selection.app!r} by {other.who} is {other.state}: "
                "wait for its end, or cancel it"
            )
        self._jobs[key] = job  # before the log is written: of two requests at once only one comes past the check
        self._make_room()
        try:
            number = await self._audit.begin(
                job.who, f"{job.action} dead letters: {job.selection}", *_place(job.selection)
            )
        except BaseException:
            del self._jobs[key]
            raise
        self._show()
        task = asyncio.create_task(self._run(job, number), name=f"{job.action} dead letters of {key[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def find(self, vhost: str, app: str) -> Job:
        """Return the job of an app that runs or is paused. Raises UsageError if there is none."""
        job = self._jobs.get((vhost, app))
        if job is None or job.is_over:
            raise UsageError(f"no replay or drop of the dead letters of {app!r} runs: it has ended")
        return job

    async def steer(self, job: Job, who: str, action: Literal["pause", "resume", "cancel"]) -> None:
        """Pause, resume or cancel a job, and log it. Raises RecordsError."""
        number = await self._audit.begin(who, f"{action} {job.action} of dead letters", *_place(job.selection))
        {"pause": job.pause, "resume": job.resume, "cancel": job.cancel}[action]()
        self._show()
        await self._audit.end(number)

    async def _run(self, job: Job, number: int) -> None:
        is_over = asyncio.Event()
        logging_ = asyncio.create_task(self._log(job, number, is_over), name="progress in the audit log")
        try:
            await job.run(self._connected, self._progress)
        except asyncio.CancelledError:
            job.state, job.error = "cancelled", "the dashboard was stopped"
        except RabbitryError as error:
            job.state, job.error = "failed", readable(str(error))
        except Exception as error:  # the page must not wait for ever for its end
            _logger.exception("a %s of dead letters failed", job.action)
            job.state, job.error = "failed", repr(error)
        finally:
            is_over.set()
        self._show()
        # Not cancelled: its write goes on in a thread, and could replace the result that is written next.
        await asyncio.wait((logging_,))
        await self._end(job, number)

    async def _log(self, job: Job, number: int, is_over: asyncio.Event) -> None:
        """Write the progress into the audit log, in case this process is killed, and show what was held back."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOGGED_EVERY):
                    await is_over.wait()
                return
            self._show()
            await self._end(job, number)

    async def _end(self, job: Job, number: int) -> None:
        try:
            await self._audit.end(number, job.result)
        except RabbitryError as error:
            _logger.warning("the result of a %s is not in the audit log: %s", job.action, error)

    def _make_room(self) -> None:
        for key in [key for key, job in self._jobs.items() if job.is_over][: max(0, len(self._jobs) - MOST_KEPT)]:
            del self._jobs[key]

    def _progress(self) -> None:
        if time.monotonic() - self._shown_at > _SHOWN_EVERY:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        shown = {f"{vhost}/{app}": job.shown() for (vhost, app), job in self._jobs.items()}
        self.topic.put(shown, time.time())


def _place(selection: Selection) -> tuple[str, str]:
    return selection.vhost, dead_queue(selection.app)
