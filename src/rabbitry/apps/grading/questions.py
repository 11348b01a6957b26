"""Answering of questions about the records over the broker, several at once and in turn, beside a coordinator.

Students' programs ask for the status of a submission, pages and commands away from the records for more of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import msgspec
from msgspec import structs

from rabbitry._decode import json_decoder
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Channel, Connection, Delivery, Properties
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading import changing, looking
from rabbitry.apps.grading.changing import Change
from rabbitry.apps.grading.exceptions import FileLost
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.looking import PART_NUMBER, PARTS, Looked
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.places import Places
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.records.course import is_of_student
from rabbitry.apps.grading.records.requests import described
from rabbitry.apps.grading.releasing import for_student
from rabbitry.apps.grading.requesting import LEAST
from rabbitry.apps.grading.stages import STATUS_QUEUE
from rabbitry.exceptions import Closed, ProtocolViolation, PublishError, RabbitryError, Undecodable, UsageError
from rabbitry.flow.codec import JSON
from rabbitry.runtime.tasks import until

AT_ONCE: Final = 4
"""Questions that are answered at once, each in a thread, with its answer in memory: 1 MB or a single entry."""
EACH: Final = 2
"""Of these the questions of one asker."""
MOST: Final = 500
"""Questions that are answered or wait; further ones are refused."""
MOST_EACH: Final = 50
"""Of these the questions of one asker."""
LONGEST: Final = 1_000_000
"""Bytes of a question: a reason has up to 100,000 characters."""
MOST_BYTES: Final = 20_000_000
"""Bytes of all questions that are answered or wait; further ones are refused."""
MOST_BYTES_EACH: Final = 4_000_000
"""Of these the bytes of the questions of one asker."""

_NAMELESS: Final = (
    "this course answers only questions that name their login: "
    "set the message's property user-id, which the broker checks"
)
_BUSY: Final = "the coordinator has too many questions to answer: ask again in a moment"
_FAILED: Final = "the coordinator failed to answer: its log says why"

_logger = logging.getLogger(__name__)


class Question(msgspec.Struct):
    """A question for the status of a submission, or for more of the records, or a change of them.

    Parts: whether the asker takes a long answer in several messages.
    """

    SubmissionID: str = ""
    Look: looking.Look | None = None
    Change: Change | None = None
    Parts: bool = False

    @property
    def is_status(self) -> bool:
        """Whether it asks for the status of a submission."""
        return self.Look is None and self.Change is None


class Sender(NamedTuple):
    """Who asks, by the properties of the message. login: that the broker vouches for; None if it names none.

    expiration: how many milliseconds the asker waits, as text; None for ever.
    """

    reply_to: str
    correlation_id: str | None
    login: str | None
    expiration: str | None


_decode_question = json_decoder(Question)


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a coordinator. Its functions block.

    files: the kept files; None if it keeps none. exchange: the roles' exchange.
    """

    database: Database
    course: Course
    files: Files | None
    exchange: str

    def answer(self, question: Question, asker: str | None) -> bytes:
        """Return the answer to a question, as JSON.

        Args:
            question: The question.
            asker: The login that the broker vouches for; None if the message names none.
        """
        if question.is_status:
            body = self.status(question.SubmissionID, asker)
            return msgspec.json.encode(_too_large(body)) if _is_too_large(body, question) else body
        try:
            if question.Change is not None:
                found = self._changed(question.Change, asker)
            else:
                assert question.Look is not None  # noqa: S101 # narrows: one of both is there
                found = self._looked(question.Look, asker)
        except RabbitryError as error:
            return msgspec.json.encode(looking.refused(error))
        body = msgspec.json.encode(Looked(found))
        if _is_too_large(body, question):
            return msgspec.json.encode(Looked(error=f"{_too_large(body)}: take it in parts (Parts)"))
        return body

    def status(self, identity: str, asker: str | None) -> bytes:
        """Return the record of a submission as JSON, by its id or a prefix of it.

        The JSON is an object; `null` if the asker may see no such submission; a text if several match the prefix or
        nothing tells who asks.

        Args:
            identity: The id or a prefix.
            asker: The login that the broker vouches for: the message's property user-id.
        """
        if self.course.status_logins is not None and asker is None:
            return msgspec.json.encode(_NAMELESS)
        student = asker if self._is_student(asker) else None
        try:
            work = partial(described, given=identity, course=self.course, least=LEAST, student=student)
            found = self.database.read_now(work)
            # Without status_logins, anybody may ask, students too.
            is_staff = asker is not None and asker in (self.course.status_logins or ())
            return msgspec.json.encode(found if is_staff else for_student(found))
        except NoSuchID as error:
            return msgspec.json.encode(str(error) if error.is_ambiguous else None)

    def _looked(self, asked: looking.Look, asker: str | None) -> object:
        if asked.what == "file":
            self._check_file(asked, asker)
            return looking.read_file(self._files(), asked)
        if asked.what == "submission" and self._is_student(asker):
            asked = structs.replace(asked, student=asker)
        else:
            self._check_login(asker)
        found = self.database.read_now(partial(looking.read, asked=asked, course=self.course))
        # A student's page asks over the login of the staff. It hides held results itself, unless it is an older one.
        if asked.student is not None and asked.what == "submission":
            return for_student(found)
        if asked.student is not None and asked.what == "submissions":
            found["submissions"] = [for_student(one) for one in found["submissions"]]
        return found

    def _changed(self, wanted: Change, asker: str | None) -> object:
        self._check_login(asker)
        done = changing.change(self.database, self._files(), wanted, self.course, self.exchange)
        _logger.info("%s, asked for by %r over the login %r: %s", wanted.what, wanted.who, asker, done["id"])
        return done

    def _files(self) -> Files:
        if self.files is None:
            raise UsageError("this coordinator keeps no files")
        return self.files

    def _check_file(self, asked: looking.Look, asker: str | None) -> None:
        """Raise an error unless the asker may read all files, or handed in this one."""
        if not self._is_student(asker):
            self._check_login(asker)
        elif not self.database.read_now(partial(is_of_student, sha256=asked.sha256, student=asker or "")):
            raise FileLost(f"student {asker} handed in no file {asked.sha256}")

    def _is_student(self, asker: str | None) -> bool:
        """Return whether the login is a student's, who may ask about their own submissions."""
        logins = self.course.status_logins
        return logins is not None and asker is not None and asker not in logins

    def _check_login(self, asker: str | None) -> None:
        """Raise UsageError for a login that the course does not name.

        Unlike the status of a submission, whose id the asker has to know, all else is about everybody.
        """
        if asker is not None and asker in (self.course.status_logins or ()):
            return
        who = "no login" if asker is None else f"the login {asker[:60]!r}"
        raise UsageError(
            f"the coordinator answers {who} no questions about all submissions: "
            "name the login of this program's broker URL in status_logins of the coordinator's configuration"
        )


async def answer_questions(
    answers: Answers, stop: asyncio.Event, answering: asyncio.Event, connection: Connection
) -> None:
    """Answer questions about submissions from the records until `stop` is set.

    `answering` is set once the queue for questions exists.

    Raises:
        ConnectionClosed: The connection was closed, or lost for good.
    """
    async with await connection.channel() as channel:
        await channel.declare_queue(STATUS_QUEUE, durable=True)
        answering.set()
        threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="answers")
        try:
            await until(stop, _Desk(answers, channel, threads).serve())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # a bucket may take a minute to answer


class _Desk:
    """The questions that are answered, and those that wait.

    Askers have their turns one after another, so that neither a slow question nor a flood of them holds up others.
    """

    def __init__(self, answers: Answers, channel: Channel, threads: ThreadPoolExecutor) -> None:
        self._answers = answers
        self._channel = channel
        self._threads = threads
        self._places = Places(AT_ONCE, each=EACH)
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_askers: Counter[str] = Counter()
        """The questions that are answered or wait. Those of one turn of the loop have not come to `_places` yet."""
        self._bytes_of_askers: Counter[str] = Counter()

    async def serve(self) -> None:
        """Take questions until an error ends the consumer."""
        # Without acks: the asker repeats its question, and one that can't be answered must not be redelivered.
        async with self._channel.consume(STATUS_QUEUE, no_ack=True) as questions:
            try:
                async for delivery in questions:
                    self._take(delivery)
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, delivery: Delivery) -> None:
        """Begin to answer a question, or to refuse it. It never waits, so that those behind are reached."""
        try:
            properties = delivery.properties
            if len(delivery.body) > LONGEST:
                raise Undecodable(f"it has {len(delivery.body)} bytes, more than {LONGEST}")
            question = _decode_question(delivery.body)
        except (Undecodable, ProtocolViolation) as error:
            _logger.warning("a question about a submission is not answered: %s", error)
            return
        if not properties.reply_to:
            _logger.warning("a question about a submission is not answered: it has no reply_to")
            return
        if len(self._tasks) >= 2 * MOST:
            return  # as many refusals wait to be sent as questions to be answered: the broker takes nothing
        # What waits is the body alone: the headers may be large, and the decoded question many times the body.
        to = Sender(properties.reply_to, properties.correlation_id, properties.user_id, properties.expiration)
        who, size = self._asker(question, properties), len(delivery.body)
        is_refused = self._is_full(who, size)
        work = self._refuse(to, is_status=question.is_status) if is_refused else self._answer(delivery.body, to, who)
        task = asyncio.create_task(work, name="a question about a submission")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not is_refused:
            self._of_askers[who] += 1
            self._bytes_of_askers[who] += size
            task.add_done_callback(lambda _: self._done(who, size))

    def _is_full(self, who: str, size: int) -> bool:
        """Return whether a question is one too many, of its asker or of all."""
        return (
            self._of_askers.total() >= MOST
            or self._of_askers[who] >= MOST_EACH
            or self._bytes_of_askers.total() + size > MOST_BYTES
            or self._bytes_of_askers[who] + size > MOST_BYTES_EACH
        )

    def _done(self, who: str, size: int) -> None:
        self._of_askers[who] -= 1
        self._bytes_of_askers[who] -= size
        if not self._of_askers[who]:
            del self._of_askers[who], self._bytes_of_askers[who]

    def _asker(self, question: Question, properties: Properties) -> str:
        """Return by what askers are told apart.

        Where the course names logins, it is the login; else everybody may have the same one, and it is the queue for
        the answers, of which each connection has its own. Pages ask for many students over one login that is named; any
        other login could name as many students as it likes, and have the turns of all of them.
        """
        logins = self._answers.course.status_logins
        one = properties.reply_to if logins is None else properties.user_id
        is_named = properties.user_id in (logins or ())
        student = question.Look.student if question.Look is not None and is_named else None
        return f"{one or 'nobody'} {student or ''}"

    async def _answer(self, body: bytes, to: Sender, who: str) -> None:
        loop = asyncio.get_running_loop()
        until_ = loop.time() + _seconds(to.expiration)
        try:
            async with self._places.turn(who):
                if loop.time() > until_:
                    return  # the asker has given up
                question = _decode_question(body)
                work = partial(self._answers.answer, question, to.login)
                try:
                    answer = await loop.run_in_executor(self._threads, work)
                except RecordsError as error:
                    _logger.warning("a question about a submission is not answered: %s", error)
                    return
                except Exception:  # one question must not end the answers to all others
                    _logger.exception("a question about a submission is not answered")
                    answer = _error(_FAILED, is_status=question.is_status)
                await self._reply(answer, to, in_parts=question.Parts)
        except (PublishError, Closed) as error:
            _logger.warning("a question about a submission is not answered: %s", error)

    async def _refuse(self, to: Sender, *, is_status: bool) -> None:
        try:
            await self._reply(_error(_BUSY, is_status=is_status), to)
        except (PublishError, Closed) as error:
            _logger.warning("a question about a submission is not refused: %s", error)

    async def _reply(self, body: bytes, to: Sender, *, in_parts: bool = False) -> None:
        size = looking.PART if in_parts else max(len(body), 1)
        starts = range(0, len(body), size)
        for number, start in enumerate(starts, 1):
            headers = {PART_NUMBER: number, PARTS: len(starts)} if len(starts) > 1 else None
            # The asker may be gone; then the answer is not needed.
            await self._channel.publish(
                body[start : start + size],
                routing_key=to.reply_to,
                properties=Properties(content_type=JSON, correlation_id=to.correlation_id, headers=headers),
                mandatory=False,
            )


def _is_too_large(body: bytes, question: Question) -> bool:
    return len(body) > looking.LARGEST and not question.Parts


def _too_large(body: bytes) -> str:
    return f"the answer would have {len(body)} bytes, and at most {looking.LARGEST} are sent"


def _error(why: str, *, is_status: bool) -> bytes:
    """Return an answer that tells why there is none. is_status: whether the question was for a submission's status."""
    return msgspec.json.encode(why if is_status else Looked(error=why, kind="failed"))


def _seconds(expiration: str | None) -> float:
    """Return how long an asker waits, by the message's property; without one, for ever."""
    return int(expiration) / 1000 if expiration is not None and expiration.isdecimal() else float("inf")
