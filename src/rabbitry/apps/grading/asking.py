"""Questions about the records over the broker, and access to records that may be kept here or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec
from msgspec import structs

from rabbitry._decode import json_decoder
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Consumer, Properties, connect
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading import looking
from rabbitry.apps.grading.changing import Change, change
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.files import Fetcher, Files, Kept, most_packed
from rabbitry.apps.grading.looking import PART, PART_NUMBER, PARTS, Look, Looked, found_in
from rabbitry.apps.grading.message import ID, sendable
from rabbitry.apps.grading.requesting import LEAST
from rabbitry.apps.grading.stages import APP, STATUS_QUEUE
from rabbitry.exceptions import (
    Closed,
    ConnectFailed,
    ConnectionClosed,
    NotFound,
    PublishReturned,
    RabbitryError,
    RequestTimeout,
    UsageError,
)
from rabbitry.flow.codec import JSON

if TYPE_CHECKING:
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database

ANSWER_WITHIN: Final = 5.0
"""Seconds that the question and a coordinator's answer may take."""
_LOOK_WITHIN: Final = 1.0
"""Seconds that the broker has to say whether a coordinator runs, after there was no answer."""
_NOBODY: Final = (
    "no coordinator answers on this broker: start one, or name the course's database with --database "
    "or RABBITRY_DATABASE"
)
_REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""RabbitMQ's docs/direct-reply-to: answers need no queue, and leave none behind."""
_decode_answer: Callable[[bytes], dict[str, Any] | str | None] = json_decoder(dict[str, Any] | str | None)  # type: ignore[arg-type] # a union is no type
_decode_looked: Final = json_decoder(Looked)
_LARGEST_NUMBER: Final = 2**63 - 1
T = TypeVar("T")


class Asking:
    """Asks coordinators, any number of questions at once. An async context manager; entering raises ConnectFailed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._waiting: dict[str, _Arriving] = {}

    async def __aenter__(self) -> Self:
        try:
            self._connection = connection = await self._stack.enter_async_context(
                connect(self._url, name=f"{APP} status")
            )
            # The broker checks it. The name in a client's certificate is not known here.
            self._login = None if connection.url.external else connection.url.user
            self._channel = await connection.channel()
            answers = await self._stack.enter_async_context(self._channel.consume(_REPLY_TO, no_ack=True))
        except BaseException:
            await self._stack.aclose()
            raise
        self._reading = asyncio.create_task(self._read(answers), name="answers of coordinators")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        await self._stack.aclose()

    async def ask(self, identity: str) -> dict[str, Any] | None:
        """Return a submission's record with its history, by its id or a prefix of it; None if unknown.

        Raises:
            NoSuchID: Several ids begin with it.
            RequestTimeout: No coordinator answers, or not in time; the text says which.
            Closed: The connection was lost for good.
        """
        found = _decode_answer(await self._answer({ID: sendable(identity)}))
        if isinstance(found, str):
            raise NoSuchID(found, is_ambiguous=True)
        return found

    async def look(self, asked: Look) -> Any:
        """Return a part of the records, as `looking.read` does.

        Raises:
            NoSuchID: There is no such submission, request or run.
            UsageError: The coordinator does not answer this login, or the module is unknown there.
            RecordsError: The coordinator can't read the records or the file, or has too much to do.
            RequestTimeout: No coordinator answers, or not in time; the text says which.
            Closed: The connection was lost for good.
        """
        if not 0 <= asked.number <= _LARGEST_NUMBER:
            raise NoSuchID(f"there is no {asked.what} {asked.number}")
        return found_in(_decode_looked(await self._answer({"Look": asked})))

    async def change(self, wanted: Change) -> dict[str, Any]:
        """Have a coordinator make a change, as `changing.change` does. After RequestTimeout it may be made or not."""
        changed: dict[str, Any] = found_in(_decode_looked(await self._answer({"Change": wanted})))
        return changed

    async def rows(self, asked: Look) -> list[dict[str, Any]]:
        """Return all rows of a question for `rows`, by id, or `regradable`, by student and id.

        They are asked for in parts. Raises the errors of `look`.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = await self.look(asked)
            found += page["rows"]
            if asked.what == "regradable":
                following = page["next"]
            else:
                following = {"after": page["rows"][-1]["id"]} if page["rows"] else None
            if following is None:
                return found
            asked = structs.replace(asked, **{name: str(value) for name, value in following.items()})

    async def file(self, kept: Kept) -> bytes:
        """Return a kept file as it is stored, compressed. It is asked for in parts. Raises the errors of `look`."""
        parts: list[bytes] = []
        asked, size = Look("file", sha256=kept.sha256, size=kept.size), 0
        while True:
            part = msgspec.convert(await self.look(structs.replace(asked, offset=size)), bytes)
            parts.append(part)
            size += len(part)
            if len(part) < PART or size > most_packed(kept):
                return b"".join(parts)

    async def _answer(self, question: dict[str, object]) -> bytes:
        identity = uuid.uuid4().hex
        properties = Properties(
            content_type=JSON,
            correlation_id=identity,
            reply_to=_REPLY_TO,
            expiration=str(int(ANSWER_WITHIN * 1000)),
            user_id=self._login,
        )
        if self._reading.done():
            raise ConnectionClosed(0, "the connection was closed")
        self._waiting[identity] = arriving = _Arriving()
        body = msgspec.json.encode({**question, "Parts": True})
        try:
            async with asyncio.timeout(ANSWER_WITHIN):  # while the broker is away, publishing takes as long as it may
                await self._channel.publish(body, routing_key=STATUS_QUEUE, properties=properties)
            return await arriving.wait()
        except PublishReturned as error:
            raise RequestTimeout(_NOBODY) from error
        except TimeoutError as error:
            raise RequestTimeout(await self._why()) from error
        finally:
            del self._waiting[identity]
            if arriving.whole.done():
                arriving.whole.exception()  # if publishing failed, nobody awaits it

    async def _why(self) -> str:
        """Return why no answer came: whether a coordinator runs."""
        try:
            async with asyncio.timeout(_LOOK_WITHIN):
                async with await self._connection.channel() as channel:
                    found = await channel.declare_queue(STATUS_QUEUE, passive=True)
        except NotFound:
            return _NOBODY
        except (RabbitryError, TimeoutError) as error:
            said = str(error) or "the broker does not answer, either"
            return f"no answer within {ANSWER_WITHIN:g} s, and it is unknown whether a coordinator runs: {said}"
        if not found.consumer_count:
            return _NOBODY
        return (
            f"a coordinator runs, and has not answered within {ANSWER_WITHIN:g} s: it is slow, or has many "
            "questions to answer; ask again in a moment"
        )

    async def _read(self, answers: Consumer) -> None:
        """Pass each answer to the question that waits for it, until an error, which all waiting questions raise."""
        why: RabbitryError = ConnectionClosed(0, "the connection was closed before the answer came")
        try:
            async for delivery in answers:
                with contextlib.suppress(RabbitryError):  # malformed properties: no question's answer
                    arriving = self._waiting.get(delivery.properties.correlation_id or "")
                    if arriving is not None:
                        arriving.add(delivery.body, delivery.properties.headers)
        except RabbitryError as error:
            why = error
        finally:
            for arriving in self._waiting.values():
                if not arriving.whole.done():
                    arriving.whole.set_exception(why)


class _Arriving:
    """An answer that arrives in one message or in several. Each of them may take ANSWER_WITHIN."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.whole: asyncio.Future[bytes] = self._loop.create_future()
        self._parts: dict[int, bytes] = {}
        self._until = self._loop.time() + ANSWER_WITHIN

    def add(self, body: bytes, headers: Mapping[str, object] | None) -> None:
        """Add a message. One that came before, or after the answer is whole, changes nothing."""
        if self.whole.done():
            return
        number, parts = (headers or {}).get(PART_NUMBER), (headers or {}).get(PARTS)
        if not (isinstance(number, int) and isinstance(parts, int) and 1 <= number <= parts):
            self.whole.set_result(body)
            return
        self._parts[number] = body
        self._until = self._loop.time() + ANSWER_WITHIN
        if len(self._parts) == parts:
            self.whole.set_result(b"".join(self._parts[one] for one in range(1, parts + 1)))

    async def wait(self) -> bytes:
        """Return the whole answer. Raises TimeoutError, and the error with which `whole` failed."""
        while not self.whole.done():
            left = self._until - self._loop.time()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait((self.whole,), timeout=left)
        return self.whole.result()


class Looking:
    """The records for a page or a command: where they are kept, else a coordinator's over the broker.

    Args:
        url: The broker.
        course: A function that returns the course.
        records: A function that returns the open database; None if there is none here.
        is_named: Whether the records are in that database, whatever it holds.
        least: The fewest characters of a submission's id, for records that are here.
    """

    def __init__(
        self,
        url: str,
        course: Callable[[], Awaitable[Course]],
        records: Callable[[], Awaitable[Database | None]],
        *,
        is_named: bool = False,
        least: int = LEAST,
    ) -> None:
        self._url = url
        self._course = course
        self._records = records
        self._has_kept = is_named
        self._least = least
        self._asking: Asking | None = None
        self._opening = asyncio.Lock()

    async def kept(self) -> Database | None:
        """Return the open database if the course's records are in it; None if it has a role's inbox at most."""
        records = await self._records()
        if records is None:
            return None
        if not self._has_kept:
            from rabbitry.apps.grading.records.course import are_kept

            self._has_kept = await records.read(are_kept)
        return records if self._has_kept else None

    async def read(self, asked: Look) -> Any:
        """Return a part of the records. Raises the errors of `looking.read` and of `Asking`."""
        return await looking.filled(asked, self._read)

    async def _read(self, asked: Look) -> Any:
        records = await self.kept()
        if records is not None:
            work = partial(looking.read, asked=asked, course=await self._course(), least=self._least)
            return await records.read(work)
        return await self._of_coordinator(lambda asking: asking.look(asked))

    async def rows(self, asked: Look) -> list[dict[str, Any]]:
        """Return all rows of a question for `rows` or `regradable`, by id. Raises the errors of `read`."""
        records = await self.kept()
        if records is None:
            return await self._of_coordinator(lambda asking: asking.rows(asked))
        work = looking.regradable if asked.what == "regradable" else looking.rows
        return await records.read(partial(work, asked=asked, course=await self._course()))

    async def change(self, wanted: Change, here: Callable[[Database], Files], exchange: str) -> dict[str, Any]:
        """Make a change. Raises the errors of `changing.change` and of `Asking`.

        Args:
            wanted: The change.
            here: A function that blocks, and returns the kept files of records that are here.
            exchange: The roles' exchange, for records that are here.
        """
        records = await self.kept()
        if records is None:
            return await self._of_coordinator(lambda asking: asking.change(wanted))
        course = await self._course()
        return await asyncio.to_thread(lambda: change(records, here(records), wanted, course, exchange))

    async def files(self, here: Callable[[Database], Files]) -> Fetcher:
        """Return the kept files, which are read in threads. here: as for `change`."""
        records = await self.kept()
        if records is not None:
            return await asyncio.to_thread(here, records)
        loop = asyncio.get_running_loop()

        def get(kept: Kept) -> bytes:
            asking = self._of_coordinator(lambda asking: asking.file(kept))
            try:
                return asyncio.run_coroutine_threadsafe(asking, loop).result()
            except FilesError:
                raise
            except (Closed, ConnectFailed, RecordsError, RequestTimeout, UsageError) as error:
                raise FilesError(f"the file {kept.sha256} can't be had from a coordinator: {error}") from error

        return Fetcher(get, "the coordinator's place")

    async def _of_coordinator(self, ask: Callable[[Asking], Awaitable[T]]) -> T:
        async with self._opening:
            if self._asking is None:
                self._asking = await Asking(self._url).__aenter__()
            asking = self._asking
        try:
            return await ask(asking)
        except Closed:
            if self._asking is asking:
                await self.close()  # closed for good; the next question connects again
            raise

    async def close(self) -> None:
        """Close the connection if there is one."""
        asking, self._asking = self._asking, None
        if asking is not None:
            with contextlib.suppress(RabbitryError):
                await asking.__aexit__(None, None, None)
