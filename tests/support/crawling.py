"""A crawl for tests and benchmarks: roles as separate processes, to be killed and paused, and their results."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar

import pika
import pika.exceptions
import psutil

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import AskExport, AskStatus, AskWhy, Entry, Exported, Question, Status, Why
from rabbitry.apps.crawl.keeper.answering import answer
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.exceptions import NoRecords
from tests.support.commands import Service, run, service
from tests.support.waiting import eventually_blocking

T = TypeVar("T")
Role: TypeAlias = Literal["crawler", "processor", "keeper", "run"]

LOOPBACK: Final = "127.0.0.0/8"
_PEAK: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


class Crawl:
    """Roles on one broker, and one database for all keepers. A context manager; leaving it kills them.

    broker: its URL. folder: for the database, SQLite; database: another one, by URL. more: in the environment of roles.
    anew: roles are started as a user does, see `service`.
    """

    def __init__(
        self,
        broker: str,
        folder: Path,
        database: str | None = None,
        more: Mapping[str, str] | None = None,
        *,
        anew: bool = False,
    ) -> None:
        self._anew = anew
        self.broker = broker
        self.database = database or f"sqlite:///{folder}/crawl.db"
        self._more = dict(more or {})
        self.running: dict[Service, Role] = {}
        self._stack = contextlib.ExitStack()
        self._database: Database | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, role: Role, *options: str, private: str = LOOPBACK, anew: bool = False) -> Service:
        """Start a role; private: the networks that a crawler may reach beside the public ones; anew: this role."""
        arguments = ["crawl", role, "--broker", self.broker, *options]
        if role in ("keeper", "run"):
            arguments += ["--database", self.database]
        if role in ("crawler", "run"):
            arguments += ["--allow-private", private]
        started = self._stack.enter_context(service(*arguments, more=self._more, anew=anew or self._anew))
        self.running[started] = role
        return started

    def start_all(self, *, crawlers: int = 1, processors: int = 1, keepers: int = 1) -> None:
        """Start a number of each role."""
        for role, count in (("keeper", keepers), ("crawler", crawlers), ("processor", processors)):
            for _ in range(count):
                self.start(role)  # type: ignore[arg-type] # mypy takes the literals for str

    def of(self, role: Role) -> list[Service]:
        """Return those that run in a role."""
        return [one for one, its in self.running.items() if its == role]

    def active_keeper(self) -> Service | None:
        """Return the keeper that wrote last, of those that run."""
        [node] = self._reading().read_now(
            lambda it: it.exec_driver_sql("SELECT keeper FROM crawl_keeper").scalars().all()
        )
        return next((one for one in self.of("keeper") if f"keeper {node}" in one.output), None)

    def is_locked(self) -> bool:
        """Return whether a process holds the write lock of the database; SQLite only."""
        if not self.database.startswith("sqlite"):
            return False
        with contextlib.closing(sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def kill(self, one: Service) -> Role:
        """End a role at once (SIGKILL), with its children. Return which it was."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(one.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        one.process.kill()
        one.process.wait()
        return self.running.pop(one)

    def stop(self, one: Service) -> int:
        """End a role in order (SIGTERM). Return its exit code."""
        one.process.send_signal(signal.SIGTERM)
        del self.running[one]
        return one.process.wait(60)

    def ready(self) -> None:
        """Wait until each queue has its consumers."""
        wanted = {"crawler": names.BATCH_QUEUE, "processor": names.PAGE_QUEUE, "keeper": names.KEEPER_QUEUE}
        with Queues(self.broker) as queues:
            for queue in {wanted[role] for role in self.running.values() if role in wanted}:
                eventually_blocking(lambda queue=queue: queues.consumers(queue), f"a consumer of {queue}", within=60)  # type: ignore[misc] # bound now

    def check(self) -> None:
        """See that all roles that were not killed or stopped still run."""
        for one, role in self.running.items():
            assert one.process.poll() is None, f"{role} ended with {one.process.returncode}: {one.output}"

    def peak_memory(self, role: Role) -> int:
        """Return the most resident memory in bytes that a role's process, or a process of its own, ever had; Linux."""
        most = 0
        for one in self.of(role):
            process = psutil.Process(one.process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(FileNotFoundError):  # it has just ended
                    found = _PEAK.search(Path(f"/proc/{each.pid}/status").read_text())
                    most = max(most, int(found[1]) << 10 if found else 0)
        return most

    def add(self, *urls: str, **options: str | int | float | bool) -> list[dict[str, Any]]:
        """Add addresses, with `delay=0` unless another one is given. Return the answer for each."""
        arguments = ["crawl", "add", *urls, "--broker", self.broker, "--json"]
        for name, value in ({"delay": 0} | options).items():
            option = f"--{name.replace('_', '-')}"
            arguments += [option] if value is True else [option, str(value)]
        return self._json(*arguments)

    def status(self) -> Status:
        """Return how far the crawl is, read from the database."""
        return self._asked(AskStatus(), Status)

    def why(self, url: str) -> Why:
        """Return the decisions about an address, read from the database."""
        return self._asked(AskWhy(url), Why)

    def outcomes(self, url: str) -> list[str]:
        """Return all outcomes of an address, oldest first; of one that was never seen, the one that it would have."""
        why = self.why(url)
        return [decision.outcome for decision in why.decisions] or [why.would]

    def export(self) -> list[Entry]:
        """Return all documents, read from the database."""
        entries: list[Entry] = []
        after: int | None = 0
        while after is not None:
            exported = self._asked(AskExport(after), Exported)
            entries += exported.entries
            after = exported.after
        return entries

    def _asked(self, question: Question, kind: type[T]) -> T:
        answered = self._reading().read_now(partial(answer, question=question))
        assert isinstance(answered, kind), answered
        return answered

    def _reading(self) -> Database:
        def opened() -> bool:
            with contextlib.suppress(NoRecords):
                self._database = self._stack.enter_context(Database(self.database, existing=True))
            return self._database is not None

        if self._database is None:
            eventually_blocking(opened, "a keeper made the database", within=60)
        assert self._database is not None
        return self._database

    def settled(self, *, documents: int | None = None, within: float = 60.0) -> Status:
        """Wait until no address is queued or under way and all queues are empty. Return the status then.

        documents: so many must be in the index at least. A page in a processor's hands is in no queue; the latest
        outcome of its address is "page" until its document has come.
        """
        status: Status | None = None

        def done() -> bool:
            nonlocal status
            self.check()
            if queues.waiting():
                return False
            status = self.status()
            states = status.addresses
            return (
                not states.get("queued")
                and not states.get("sent")
                and not status.outcomes.get("page")
                and bool(states.get("done"))
                and status.documents >= (documents or 0)
            )

        with Queues(self.broker) as queues:
            try:
                eventually_blocking(done, "the crawl is done", within=within)
            except AssertionError as error:
                raise AssertionError(f"{error}: {status}, {queues.counts()}") from error
        assert status is not None
        return status

    @staticmethod
    def _json(*arguments: str) -> list[dict[str, Any]]:
        done = run(*arguments, within=60)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]


class Queues:
    """The crawl's queues, looked at with pika. A context manager."""

    NAMES: Final = (names.BATCH_QUEUE, names.PAGE_QUEUE, names.KEEPER_QUEUE)

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()

    def count(self, name: str) -> int:
        """Return the number of ready messages; 0 if the queue does not exist."""
        return self._looked_at(name)[0]

    def consumers(self, name: str) -> int:
        """Return the number of consumers; 0 if the queue does not exist."""
        return self._looked_at(name)[1]

    def _looked_at(self, name: str) -> tuple[int, int]:
        try:
            found = self._channel.queue_declare(name, passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            self._channel = self._connection.channel()
            return 0, 0
        return int(found.message_count), int(found.consumer_count)

    def counts(self) -> dict[str, int]:
        """Return how many messages are ready in each."""
        return {name: self.count(name) for name in self.NAMES}

    def waiting(self) -> int:
        """Return how many messages are ready in all of them."""
        return sum(self.counts().values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
