"""Access to a course's records for the commands of grading: those of this machine, else a coordinator's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.exceptions import NoRecords
from rabbitry.runtime.options import broker_url, named_database
from rabbitry.runtime.output import say

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.changing import Change
    from rabbitry.apps.grading.files import Fetcher, Files
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.runtime.io_thread import IOThread

Ask: TypeAlias = "Callable[[str], Awaitable[dict[str, Any] | None]]"


def database_url(context: typer.Context, url: str | None) -> str:
    """Return the database's URL, by default that of a file in the user's data folder."""
    named = named_database(context, url)
    if named is not None:
        return named
    from rabbitry.apps.grading.records import default_url

    return default_url()


@contextlib.contextmanager
def existing(context: typer.Context, url: str | None) -> Iterator[Database | None]:
    """Open existing records; None, with a note on stderr, if there are none yet. Creates nothing."""
    from rabbitry.apps.grading.records import Database

    with contextlib.ExitStack() as stack:
        opened = None
        try:
            opened = stack.enter_context(Database(database_url(context, url), existing=True))
        except NoRecords as error:
            say(str(error))
        yield opened


@contextlib.asynccontextmanager
async def asking(database: str | None, broker: str) -> AsyncIterator[Ask]:
    """Return a function that looks up a submission: in the database if one is named, else by asking a coordinator."""
    if database is None:
        from rabbitry.apps.grading.asking import Asking

        async with Asking(broker) as asked:
            yield asked.ask
        return
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.requests import described

    course = load_course()
    with Database(database, existing=True) as records:

        async def ask(identity: str) -> dict[str, Any] | None:
            try:
                return await records.read(partial(described, given=identity, course=course))
            except NoSuchID as error:
                if error.is_ambiguous:
                    raise
                return None

        yield ask


@dataclass(frozen=True, slots=True)
class CourseRecords:
    """The records of a course for a command. Its functions block, and raise the errors of `asking.Looking`.

    here: the open database; None if a coordinator is asked. url: the database's.
    """

    here: Database | None
    url: str
    _looking: Looking
    _io: IOThread

    def read(self, asked: Look) -> Any:
        """Return a part of the records."""
        return self._io.run(self._looking.read(asked))

    def rows(self, asked: Look) -> list[dict[str, Any]]:
        """Return all rows of a question for rows, by id."""
        return self._io.run(self._looking.rows(asked))

    def change(self, wanted: Change, files: str | None, exchange: str) -> dict[str, Any]:
        """Make a change. files: where the files are kept, if they are here; None for the coordinator's place."""
        return self._io.run(self._looking.change(wanted, partial(self._files, files), exchange))

    def files(self, named: str | None) -> Fetcher:
        """Return the kept files. named: as for `change`."""
        return self._io.run(self._looking.files(partial(self._files, named)))

    def _files(self, named: str | None, records: Database) -> Files:
        from rabbitry.apps.grading.exporting import opened_files

        return opened_files(records, self.url, named)


@contextlib.contextmanager
def course_records(
    context: typer.Context, database: str | None, broker: str | None, course: Course
) -> Iterator[CourseRecords | None]:
    """Open the records if they are on this machine, else connect to the broker to ask a coordinator.

    They are here if a database is named, or if the user's has them. None, with a note on stderr, if the named one has
    none. Creates nothing. Raises ConnectFailed and LoginRefused.
    """
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import are_kept
    from rabbitry.runtime.io_thread import IOThread

    named, url = named_database(context, database), database_url(context, database)
    with contextlib.ExitStack() as stack:
        found: Database | None = None
        try:
            found = stack.enter_context(Database(url, existing=True))
        except NoRecords as error:
            if named is not None:
                say(str(error))
                yield None
                return
        here = found if found is not None and (named is not None or found.read_now(are_kept)) else None

        async def known() -> Course:
            return course

        async def records() -> Database | None:
            return here

        io = IOThread("rabbitry-grading")
        stack.callback(io.stop)
        broker_ = "" if here is not None else broker_url(context, broker)
        looking = Looking(broker_, known, records, is_named=True, least=1)
        stack.callback(lambda: io.run_at_end(looking.close()))
        yield CourseRecords(here, url, looking, io)
