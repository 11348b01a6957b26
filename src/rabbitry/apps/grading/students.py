"""The student's side: files looked at before anything is sent, submissions, their status, results as they come."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rabbitry._decode import decode_object, json_decoder
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Properties, connect
from rabbitry.apps.grading.message import ID, LONGEST_NAME, Assignment, Progress, sendable, submission
from rabbitry.apps.grading.modules import Course, Module
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.roles import PROGRESS_KEY, RESULTS
from rabbitry.apps.grading.stages import APP, STATUS_QUEUE, Office, Seat, Wiring
from rabbitry.exceptions import PublishReturned, RequestTimeout, Undecodable, UsageError
from rabbitry.flow.codec import JSON
from rabbitry.flow.message import first_properties
from rabbitry.flow.publisher import Publisher
from rabbitry.flow.wiring.declarer import Declarer

ANSWER_WITHIN: Final = 5.0
"""Seconds that a coordinator has to answer."""
_LONGEST_NUMBER: Final = 18
_MATCH_WITHIN: Final = 0.1
"""Seconds that a configured expression has for a student's number."""
_NUMBER_IN_NAME: Final = re.compile(r"\d{4,18}(?!\d)")
_decode_answer: Callable[[bytes], dict[str, Any] | str | None] = json_decoder(dict[str, Any] | str | None)  # type: ignore[arg-type] # a union is no type
_UNCONFIRMED: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to be handed in."""

    student: int | str
    module: Module
    path: Path


def student_number(text: str, course: Course | None = None) -> int | str:
    """Read a student's number: a number if it is digits that begin with no zero, text otherwise.

    Raises:
        UsageError: The text is no student's number: not digits, or not what the course's configuration says.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
    if course is None or course.student_number is None:
        if not is_number or not int(text):
            raise UsageError(f"{text!r} is no student number: it has 1 to {_LONGEST_NUMBER} digits")
    elif _matched(f"(?:{course.student_number})\\Z", text) is None or len(text) > LONGEST_NAME:
        raise UsageError(f"{text!r} is no student number: this course's are {course.student_number}")
    return int(text) if is_number and not text.startswith("0") else text


def _matched(pattern: str, text: str) -> str | None:
    """Return what a pattern of the configuration matches at the beginning of a text, within bounded time."""
    import regex  # only few courses need it

    try:
        found = regex.match(f"(?:{pattern})", text[: LONGEST_NAME + 1], timeout=_MATCH_WITHIN)
    except TimeoutError as error:
        raise UsageError(f"student_number {pattern!r} takes too long to match {text[:40]!r}") from error
    return None if found is None else found[0]


def entries(path: Path, student: str | None, module: str, course: Course) -> list[Entry]:
    """Return what is handed in: a file, or each file of a folder (hidden ones and its folders are left out).

    Args:
        path: A file or a folder.
        student: None takes the number that a file's name begins with.
        module: The module that it is handed in for.
        course: The course's configuration.

    Raises:
        UsageError: A file can't be handed in. All files are checked first, so nothing is sent if one is wrong.
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
        raise UsageError(f"{folder}: no files there")
    return paths


def read(path: Path, course: Course) -> bytes:
    """Read a file that is handed in.

    Raises:
        UsageError: It is unreadable, empty, or too large.
    """
    try:
        if not path.is_file():  # a pipe or a device could be endless
            raise UsageError(f"{path}: {'no regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            data = file.read(course.largest_submission + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    return checked(data, str(path), course)


def checked(data: bytes, name: str, course: Course) -> bytes:
    """Return a solution that can be handed in.

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
        raise UsageError(f"{path}: whose is it? Its name begins with no student number; say --student")
    return student_number(number, course)


class Desk:
    """Submits assignments. An async context manager; it connects at the first submission for a module."""

    def __init__(self, wiring: Wiring, url: str, *, strict: bool = False) -> None:
        """Create a desk. strict: raise TopologyMismatch if something exists on the broker with other flags."""
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
        """Hand in a solution; returns its id once the broker has confirmed it.

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
        """Do as `submit` does, but give the id and a future that is done when it is confirmed."""
        publisher = await self._publisher(module)
        fields = submission(student, module.name, solution, name, "", who=who)
        assignment = Assignment(fields | {ID: (identity := new_id(fields))})
        properties = first_properties(APP, JSON, Assignment.__name__)
        properties = properties._replace(message_id=identity, correlation_id=identity)
        sent = await publisher.send_body(msgspec.json.encode(assignment), properties, key=module.key)
        told = first_properties(APP, JSON, Progress.__name__)._replace(correlation_id=identity)
        recorded = await publisher.send_body(msgspec.json.encode(Progress.of(assignment)), told, key=PROGRESS_KEY)
        confirmed = asyncio.gather(sent, recorded)
        # Whoever leaves before it is done is told by the publisher's log; asyncio would print each one.
        confirmed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return identity, confirmed

    async def _publisher(self, module: Module) -> Publisher:
        async with self._opening:
            if module.name not in self._publishers:
                app = Office(self._wiring, [Seat("demonstrator", module)]).app()
                self._publishers[module.name] = await self._stack.enter_async_context(
                    app.publisher(self._url, strict=self._strict)
                )
        return self._publishers[module.name]


async def submit_all(
    wiring: Wiring, url: str, wanted: Sequence[Entry], tell: Callable[[Entry, str], None], *, strict: bool = False
) -> None:
    """Submit files. Raises the errors of `Desk.submit`, and TopologyMismatch.

    Args:
        wiring: How the broker is reached and what is declared.
        url: The broker.
        wanted: The files to hand in.
        tell: Called with each entry and the submission's id, once the broker has confirmed it.
        strict: Raise TopologyMismatch if something exists on the broker with other flags.
    """
    pending: deque[tuple[Entry, str, asyncio.Future[tuple[None, None]]]] = deque()
    async with Desk(wiring, url, strict=strict) as desk:
        for entry in wanted:
            data = await asyncio.to_thread(read, entry.path, wiring.course)
            identity, future = await desk.send(entry.student, entry.module, data, entry.path.name)
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


class Asking:
    """Asks the coordinators what became of submissions. An async context manager; entering raises ConnectFailed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            connection = await self._stack.enter_async_context(connect(self._url, name=f"{APP} status"))
            self._channel = await connection.channel()
            self._queue = (await self._channel.declare_queue("", exclusive=True)).name
            self._answers = await self._stack.enter_async_context(self._channel.consume(self._queue, no_ack=True))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, identity: str) -> dict[str, Any] | None:
        """Return what is known of a submission with its history, by its id or its beginning; None if nothing is.

        Raises:
            NoSuchID: Several ids begin so.
            RequestTimeout: No coordinator answers.
        """
        properties = Properties(
            content_type=JSON,
            correlation_id=(question := uuid.uuid4().hex),
            reply_to=self._queue,
            expiration=str(int(ANSWER_WITHIN * 1000)),
        )
        try:
            body = msgspec.json.encode({ID: sendable(identity)})
            await self._channel.publish(body, routing_key=STATUS_QUEUE, properties=properties)
            async with asyncio.timeout(ANSWER_WITHIN):
                while (delivery := await anext(self._answers)).properties.correlation_id != question:
                    pass  # of a question that was answered too late
        except (PublishReturned, TimeoutError) as error:
            raise RequestTimeout(
                "no coordinator answers on this broker; name the course's database with --database"
            ) from error
        found = _decode_answer(delivery.body)
        if isinstance(found, str):
            raise NoSuchID(found, is_ambiguous=True)
        return found


async def results(wiring: Wiring, url: str, *, strict: bool = False) -> AsyncGenerator[dict[str, Any], None]:
    """Yield results as they come, from a queue of its own that is gone afterwards.

    Args:
        wiring: How the broker is reached and what is declared.
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
                    continue  # a broadcast may bring anything
                if fields.get("status") == "confirmed":
                    yield fields
