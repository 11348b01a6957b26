"""Deliveries on their way through a worker, one by one or as a batch, and the results of handling them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias

from rabbitry.flow import _trail
from rabbitry.flow.message import Message, Publication, Undecoded, metadata

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery
    from rabbitry.flow.codec import Encoded
    from rabbitry.flow.outgoing import Extra
    from rabbitry.flow.stage import Stage

ResultKind: TypeAlias = Literal[
    "done",
    "yielded",
    "rejected",
    "retry",
    "failed",
    "given-back",
    "abandoned",
    "suspect",
    "cancelled",
    "skipped",
]


class Product(NamedTuple):
    """A value that a handler returned or yielded, encoded. extra: what an Outgoing gives; None for a plain value."""

    key: str
    body: bytes
    content_type: str
    type_name: str
    extra: Extra | None = None


class Result(NamedTuple):
    """The outcome of handling a message or a batch. Plain data, since worker processes send it.

    reason: the `x-rabbitry-reason` of the dead letter that this may become. after: seconds until it comes again, for
    `retry`, and for what is `given-back` and waits meanwhile. context: the
    trace context that was current when the handler returned or yielded, encoded; None if that is the message's.
    failures: results of single messages of a batch, by their places in it. is_counted: for `retry`, whether it is an
    attempt. reply: what the message's caller gets. was_called: False if a gate kept the message from its handler.
    """

    kind: ResultKind
    products: tuple[Product, ...] = ()
    reason: str = ""
    error: str = ""
    trace: str = ""
    after: float | None = None
    context: bytes | None = None
    failures: tuple[tuple[int, Result], ...] = ()
    is_counted: bool = True
    reply: Encoded | None = None
    was_called: bool = True


DONE: Final = Result("done")
GIVEN_BACK: Final = Result("given-back")
"""It was not begun: the worker stops, or the delivery will come again."""
ABANDONED: Final = Result("abandoned")
"""It was begun, and did not end before the worker had to."""
SUSPECT: Final = Result("suspect")
"""It was in a batch that failed, and nobody knows whether it was the cause: it is to be handled alone."""

SKIPPED: Final = Result("skipped", was_called=False)
"""It was handled before: its stage is idempotent."""
NOTED: Final = Result("done", was_called=False)
"""The store has taken it: it is a part of a job that is not complete, or a note of the stage to itself."""
CANCELLED: Final = Result("cancelled", reason="cancelled", error="the job was cancelled")


class Source(Protocol):
    """The consumer that a job came from, as far as the job has to know it.

    queue: the stage's, or that of its suspects. generation: counts the losses of what was delivered so far.
    """

    stage: Stage
    queue: str
    generation: int

    def settled(self, job: Job) -> None:
        """Note that a job of this consumer is in hand no more."""

    def excuses(self, delivery: Delivery) -> bool:
        """Return whether a redelivered message only waited, and was in no worker's hands."""


class Stream(Protocol):
    """The unconfirmed values of one run of a generator, as far as their job's settlement has to know them.

    is_over: whether the input is settled, or given back. pending: the settlement of what the generator made. Both are
    the I/O thread's.
    """

    is_over: bool
    pending: Pending | None

    def release(self) -> None:
        """Take out a value: it is confirmed, or settled otherwise."""

    def close(self) -> None:
        """Request that the generator is closed at its next value."""


class Job:
    """A delivery in hand. Made on the I/O thread, read by handlers' threads, settled on the I/O thread."""

    __slots__ = (
        "attempt",
        "body",
        "delivery",
        "generation",
        "handled_at",
        "is_cancelled",
        "is_dropped",
        "received",
        "seconds",
        "source",
        "stage",
        "stream",
        "trail",
    )
    is_overdue: ClassVar[bool] = False

    def __init__(self, source: Source, delivery: Delivery) -> None:
        self.source: Source = source
        self.stage: Stage = source.stage
        self.delivery: Delivery = delivery
        self.body: bytes = delivery.body
        self.generation: int = source.generation
        self.trail: _trail.Trail = _trail.read(delivery)
        self.attempt: int = self.trail.attempt
        self.received: float = time.monotonic()
        self.seconds: float = 0.0
        """What the handler took."""
        self.stream: Stream | None = None
        """What its handler yields; set before that begins."""
        self.is_cancelled: bool = False
        """Whether the handler's result is of no use any more; see `Context.cancelled`."""
        self.is_dropped: bool = False
        """Whether its job was cancelled by its id; the handler's result is dropped then."""
        self.handled_at: int = 0
        """When its handler ended, in nanoseconds since 1970, for its span; 0 if it has none."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The deliveries: this one."""
        return (self,)

    @property
    def is_suspect(self) -> bool:
        """Whether it came to a worker before and was not settled there."""
        return self.source.queue != self.stage.queue

    @property
    def is_plain(self) -> bool:
        """Whether it can be handled without a look: it comes for the first time, at once, and never expires."""
        trail = self.trail
        return not (self.delivery.redelivered or trail.expires or trail.wait or trail.version > 1)

    @property
    def is_stale(self) -> bool:
        """Whether the link that brought it is gone, so that it can't be settled and will come again."""
        return self.generation != self.source.generation

    @property
    def undecoded(self) -> Undecoded:
        """The metadata as it came."""
        return Undecoded(self.delivery.header, self.delivery.exchange, self.delivery.routing_key)

    def message(self) -> Message:
        """Read the metadata."""
        return metadata(self.delivery, self.stage.name, self.stage.queue)


class BatchJob:
    """Deliveries in hand that one call of a handler gets.

    until: when its time is up, on the monotonic clock; for the parts of a batch that failed, that of the whole.
    is_killed: whether its handler was ended without being able to undo anything.
    """

    is_dropped: ClassVar[bool] = False
    __slots__ = ("_is_part", "is_cancelled", "is_killed", "jobs", "seconds", "stage", "stream", "until")

    def __init__(self, jobs: Sequence[Job], until: float, *, is_part: bool = False) -> None:
        self.jobs: tuple[Job, ...] = tuple(jobs)
        self.stage: Stage = self.jobs[0].stage
        self.until: float = until
        self.seconds: float = 0.0
        self.stream: Stream | None = None
        self.is_cancelled: bool = False
        self.is_killed: bool = False
        self._is_part = is_part

    @property
    def attempt(self) -> int:
        """The highest of its messages' attempts, for the log."""
        return max(job.attempt for job in self.jobs)

    @property
    def is_stale(self) -> bool:
        """Whether none of them can be settled any more."""
        return all(job.is_stale for job in self.jobs)

    @property
    def is_overdue(self) -> bool:
        """Whether it is a part of a batch whose time was up before this part began."""
        return self._is_part and time.monotonic() > self.until

    @property
    def body(self) -> list[bytes]:
        """The messages' bodies."""
        return [job.delivery.body for job in self.jobs]

    def message(self) -> list[Message]:
        """Read the metadata of all."""
        return [job.message() for job in self.jobs]

    def halves(self) -> list[BatchJob]:
        """Return the two halves of a batch of several, first half first."""
        middle = (len(self.jobs) + 1) // 2
        return [BatchJob(part, self.until, is_part=True) for part in (self.jobs[:middle], self.jobs[middle:])]


Work: TypeAlias = Job | BatchJob
"""The input of one call of a handler."""


class Led:
    """The messages that a handler yielded: how many, and keys and ids of the first ones if its passage is reported."""

    __slots__ = ("ids", "keys", "number")

    def __init__(self) -> None:
        self.number: int = 0
        self.keys: list[str] = []
        self.ids: list[str] = []


class Pending:
    """Deliveries to be acknowledged together, with the unconfirmed and the failed messages that they led to.

    is_open: whether the handler may still yield. made: the number of values that it has yielded. letters: dead letters
    of the inputs, each with whether it must be published alone. notes: what is published once all else is confirmed.
    failure: why the inputs can't be settled and have to be delivered again. led: what the handler yielded, for the
    passage of the first input.
    """

    __slots__ = ("failure", "is_open", "jobs", "led", "left", "letters", "made", "notes", "stage", "stream")

    def __init__(self, stage: Stage, jobs: Sequence[Job], stream: Stream | None = None) -> None:
        self.stage: Stage = stage
        self.jobs: Sequence[Job] = jobs
        self.stream: Stream | None = stream
        self.is_open: bool = stream is not None
        self.led: Led | None = None
        self.left: int = 0
        self.made: int = 0
        self.letters: tuple[tuple[Publication, bool], ...] = ()
        self.notes: tuple[Publication, ...] = ()
        self.failure: BaseException | None = None
