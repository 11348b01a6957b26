"""The student's side: checking files before any is sent, submitting, requests, and results."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rabbitry._decode import decode_object
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import connect
from rabbitry.apps.grading.message import ID, LONGEST_NAME, Assignment, Progress, check_reason, sendable, submission
from rabbitry.apps.grading.modules import Course, Module
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.requesting import KEY as REQUESTS_KEY
from rabbitry.apps.grading.requesting import Asked, Reply
from rabbitry.apps.grading.roles import PROGRESS_KEY, RESULTS
from rabbitry.apps.grading.stages import APP, RoleSet, RoleSpec, Wiring
from rabbitry.exceptions import RequestTimeout, Undecodable, UsageError
from rabbitry.flow.codec import JSON
from rabbitry.flow.exceptions import CallTimeout
from rabbitry.flow.message import first_properties
from rabbitry.flow.publisher import Publisher
from rabbitry.flow.wiring.declarer import Declarer

REPLY_WITHIN: Final = 5.0
"""Seconds that a coordinator has for its reply to a request. The request waits in its queue for as long as it takes."""
_LONGEST_NUMBER: Final = 18
_MATCH_WITHIN: Final = 0.1
"""Seconds that the configured expression may take to match a student's number."""
_NUMBER_IN_NAME: Final = re.compile(r"\d{4,18}(?!\d)")
_UNCONFIRMED: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to submit."""

    student: int | str
    module: Module
    path: Path


def student_number(text: str, course: Course | None = None) -> int | str:
    """Parse a student's number: an int if it is digits without a leading zero, else text.

    Raises:
        UsageError: The text is not a student's number: not digits, or not as the course's configuration requires.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
    if course is None or course.student_number is None:
        if not is_number or not int(text):
            raise UsageError(f"{text!r} is not a student number: it must have 1 to {_LONGEST_NUMBER} digits")
    elif _matched(f"(?:{course.student_number})\\Z", text) is None or len(text) > LONGEST_NAME:
        raise UsageError(f"{text!r} is not a student number: this course's match {course.student_number}")
    return int(text) if is_number and not text.startswith("0") else text


def _matched(pattern: str, text: str) -> str | None:
    """Return what a configured pattern matches at the start of a text, within bounded time."""
    import regex  # imported late: few courses need it

    try:
        found = regex.match(f"(?:{pattern})", text[: LONGEST_NAME + 1], timeout=_MATCH_WITHIN)
    except TimeoutError as error:
        raise UsageError(f"student_number {pattern!r} takes too long to match {text[:40]!r}") from error
    return None if found is None else found[0]


def entries(path: Path, student: str | None, module: str, course: Course) -> list[Entry]:
    """Return the files to submit: one file, or each file of a folder except hidden ones and subfolders.

    Args:
        path: A file or a folder.
        student: The student's number; None takes the number at the start of each file's name.
        module: The module.
        course: The course's configuration.

    Raises:
        UsageError: A file can't be submitted. All files are checked first: either all are sent or none.
    """
    known = course.module(module)
    number = None if student is None else student_number(student, course)
    try:
        paths = _files_of(path) if path.is_dir() else [path]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    found = [Entry(_number_of(item, course) if number is None else number, known, item) for item in paths]
    for entry in found:
        read(entry.path, course)
    return found


def _files_of(folder: Path) -> list[Path]:
    paths = sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    if not paths:
        raise UsageError(f"{folder}: the folder has no files")
    return paths


def read(path: Path, course: Course) -> bytes:
    """Read a file to submit.

    Raises:
        UsageError: It is unreadable, empty, or too large.
    """
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise UsageError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            data = file.read(course.largest_submission + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    return checked(data, str(path), course)


def checked(data: bytes, name: str, course: Course) -> bytes:
    """Return a solution that can be submitted.

    Raises:
        UsageError: It is empty or too large.
    """
    if not data:
        raise UsageError(f"{name} is empty")
    if len(data) > course.largest_submission:
        raise UsageError(f"{name} is too large: more than {course.largest_submission} bytes")
    return data


def _number_of(path: Path, course: Course) -> int | str:
    if course.student_number is None:
        found = _NUMBER_IN_NAME.match(path.name)
        number = None if found is None else found[0]
    else:
        number = _matched(f"(?:{course.student_number})(?![0-9A-Za-z])", path.name)
    if number is None:
        raise UsageError(f"{path}: the name does not begin with a student number: pass --student")
    return student_number(number, course)


class Submitter:
    """Submits assignments. An async context manager; it connects at the first submission."""

    def __init__(self, wiring: Wiring, url: str, *, strict: bool = False) -> None:
        """Prepare a client for submissions. strict: raise TopologyMismatch if flags on the broker differ."""
        self._wiring = wiring
        self._strict = strict
        self._url = url
        self._publishers: dict[str, Publisher] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def submit(
        self, student: int | str, module: Module, solution: bytes, name: str, *, who: str | None = None
    ) -> str:
        """Submit a solution; return its id once the broker has confirmed it.

        After cancelling, the outcome is unknown.

        Raises:
            ConnectFailed: No broker can be reached.
            PublishError: The broker did not take the message.
        """
        identity, confirmed = await self.send(student, module, solution, name, who=who)
        await confirmed
        return identity

    async def send(
        self, student: int | str, module: Module, solution: bytes, name: str, *, who: str | None = None
    ) -> tuple[str, asyncio.Future[tuple[None, None]]]:
        """Do the same as `submit`, but return the id and a future of the confirmation."""
        publisher = await self._publisher(module)
        fields = submission(student, module.name, solution, name, "", who=who)
        assignment = Assignment(fields | {ID: (identity := new_id(fields))})
        properties = first_properties(APP, JSON, Assignment.__name__)
        properties = properties._replace(message_id=identity, correlation_id=identity)
        sent = await publisher.send_body(msgspec.json.encode(assignment), properties, key=module.key)
        told = first_properties(APP, JSON, Progress.__name__)._replace(correlation_id=identity)
        recorded = await publisher.send_body(msgspec.json.encode(Progress.of(assignment)), told, key=PROGRESS_KEY)
        confirmed = asyncio.gather(sent, recorded)
        # A caller that leaves before it is done finds failures in the publisher's log; asyncio would print each one.
        confirmed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return identity, confirmed

    async def _publisher(self, module: Module) -> Publisher:
        async with self._opening:
            if module.name not in self._publishers:
                app = RoleSet(self._wiring, [RoleSpec("demonstrator", module)]).app()
                self._publishers[module.name] = await self._stack.enter_async_context(
                    app.publisher(self._url, strict=self._strict)
                )
        return self._publishers[module.name]


async def submit_all(
    wiring: Wiring, url: str, wanted: Sequence[Entry], tell: Callable[[Entry, str], None], *, strict: bool = False
) -> None:
    """Submit files. Raises the errors of `Submitter.submit`, and TopologyMismatch.

    Args:
        wiring: The course's settings.
        url: The broker.
        wanted: The files to submit.
        tell: Called with each entry and the submission's id, once the broker has confirmed it.
        strict: Raise TopologyMismatch if something exists on the broker with other flags.
    """
    pending: deque[tuple[Entry, str, asyncio.Future[tuple[None, None]]]] = deque()
    async with Submitter(wiring, url, strict=strict) as submitter:
        for entry in wanted:
            data = await asyncio.to_thread(read, entry.path, wiring.course)
            identity, future = await submitter.send(entry.student, entry.module, data, entry.path.name)
            pending.append((entry, identity, future))
            while pending and (len(pending) > _UNCONFIRMED or pending[0][2].done()):
                await _first(pending, tell)
        while pending:
            await _first(pending, tell)


async def _first(
    pending: deque[tuple[Entry, str, asyncio.Future[tuple[None, None]]]], tell: Callable[[Entry, str], None]
) -> None:
    entry, identity, future = pending.popleft()
    await future
    tell(entry, identity)


async def request(
    wiring: Wiring, url: str, identity: str, student: int | str, reason: str, *, strict: bool = False
) -> int:
    """Ask for another look at a confirmed submission. Return the request's number.

    Args:
        wiring: The course's settings.
        url: The broker.
        identity: The submission's id or a prefix of it.
        student: The student whose submission it is.
        reason: Why.
        strict: Raise TopologyMismatch if something exists on the broker with other flags.

    Raises:
        NoSuchID: The student has no such submission.
        UsageError: The request is refused; the text says why.
        RequestTimeout: No coordinator has replied yet. The request waits on the broker.
        ConnectFailed: The broker can't be reached.
    """
    check_reason(reason)  # before it waits on the broker
    asked = Asked(sendable(identity), student, sendable(reason))
    async with RoleSet(wiring, [RoleSpec("coordinator")]).app().publisher(url, strict=strict) as publisher:
        try:
            reply = await publisher.call(asked, key=REQUESTS_KEY, timeout=REPLY_WITHIN, type=Reply)
        except CallTimeout as error:
            raise RequestTimeout(
                "no coordinator has replied; the request waits on the broker until one runs"
            ) from error
    if reply.request is None:
        said = reply.error or "the request was refused"
        raise NoSuchID(said) if reply.is_unknown else UsageError(said)
    return reply.request


async def results(wiring: Wiring, url: str, *, strict: bool = False) -> AsyncGenerator[dict[str, Any], None]:
    """Yield results as they come, from a queue that is deleted afterwards.

    Args:
        wiring: The course's settings.
        url: The broker.
        strict: Raise PreconditionFailed if the exchange exists with other flags.

    Raises:
        ConnectFailed: No broker can be reached.
        PreconditionFailed: A queue or exchange exists with other flags.
    """
    async with connect(url, name=f"{APP} results") as connection:
        channel = await connection.channel()
        declarer = Declarer(strict=strict)
        await declarer.exchange(channel, wiring.exchange, wiring.exchange_type, durable=not wiring.plain)
        queue = (await channel.declare_queue("", exclusive=True)).name
        await channel.bind_queue(queue, wiring.exchange, RESULTS)
        async with channel.consume(queue, no_ack=True) as deliveries:
            async for delivery in deliveries:
                try:
                    fields = decode_object(delivery.body)
                except Undecodable:
                    continue  # a broadcast also brings other messages
                if fields.get("status") == "confirmed":
                    yield fields
