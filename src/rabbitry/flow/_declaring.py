"""Declarations: the half of an app that its functions are added to, before any of it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Never, TypeVar, overload

from rabbitry.flow._annotations import called
from rabbitry.flow._key_limit import KeyLimit, LimitBy, make_key_limit
from rabbitry.flow._options import MOST_UNACKED, check_options
from rabbitry.flow._parts import Join, Late
from rabbitry.flow._plan import Plan, lifespan_of
from rabbitry.flow._rate import Rate, parse_rate
from rabbitry.flow._signature import Handler
from rabbitry.flow._validating import check_queue
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.joining import make_join
from rabbitry.flow.key import Key, make_key, name_of
from rabbitry.flow.middleware import Middleware, middleware_of
from rabbitry.flow.once import Idempotent, make_idempotent
from rabbitry.flow.schedule import Missed, Schedule, Tick, check_missed, cron, every
from rabbitry.flow.spec import QueueType
from rabbitry.flow.stage import (
    ATTEMPTS,
    DELAYS,
    TIME_LIMIT,
    UNCOUNTED,
    Argument,
    Output,
    Stage,
    Then,
    described,
    make_stage,
)

H = TypeVar("H", bound=Handler)
T = TypeVar("T")
_JOINS_HAVE_NO: Final[dict[str, Any]] = {
    "batch": None,
    "batch_bytes": None,
    "keep_unknown": False,
    "single_active": False,
    "uncounted": UNCOUNTED,
    "queue_arguments": None,
    "priorities": None,
}
"""Options of a stage that a join does not have, and what they are there."""


class Declarations:
    """The stages, joins, schedules, middlewares, lifespans, keys and outputs of an app; see `App` for the arguments."""

    def __init__(self, name: str, *, plain: bool, queue_type: QueueType, store: str | None, window: float) -> None:
        self.name: str = name
        self.plain: bool = plain
        self.queue_type: QueueType = queue_type
        self.store: str | None = store
        self.window: float = window
        self.stages: dict[str, Stage] = {}
        self.outputs: dict[str, Output] = {}
        self._exchanges: dict[str, str] = {}
        """By key, if it is not the app's."""
        self._types: dict[str, Key[Any]] = {}
        """Keys whose messages have a type, by name."""
        self._joins: dict[str, Join] = {}
        """By the name of their stage."""
        self._schedules: dict[str, Schedule] = {}
        """By the name of their stage."""
        self._functions: dict[str, Handler] = {}
        """By the name of their stage, whose own handler may be a wrapper; see `_gates`."""
        self._rates: dict[str, Rate] = {}
        """By the name of their stage."""
        self._totals: dict[str, int] = {}
        """By the name of their stage."""
        self._key_limits: dict[str, KeyLimit] = {}
        """By the name of their stage."""
        self._lifespans: list[Plan] = []
        self._middlewares: list[Middleware] = []

    def stage(  # noqa: PLR0913 - the options of a stage, each a keyword with a default
        self,
        key: str | Key[Any],
        *,
        queue: str | None = None,
        then: Then = None,
        name: str | None = None,
        processes: bool = False,
        batch: int | None = None,
        within: float | None = None,
        batch_bytes: int | None = None,
        attempts: int = ATTEMPTS,
        delays: Sequence[float] = DELAYS,
        time_limit: float = TIME_LIMIT,
        concurrency: int | None = None,
        rate: str | None = None,
        total_concurrency: int | None = None,
        limit_by: LimitBy | None = None,
        rate_each: str | None = None,
        concurrency_each: int | None = None,
        keep_unknown: bool = False,
        exchange: str | None = None,
        single_active: bool = False,
        jitter: float = 0.0,
        uncounted: int = UNCOUNTED,
        queue_arguments: Mapping[str, Argument] | None = None,
        priorities: int | None = None,
        replies: bool = False,
        idempotent: Idempotent = False,
        **unknown: Never,
    ) -> Callable[[H], H]:
        """Make a function a stage: it is called with each message that is published with `key`.

        A handler is a function, a `functools.partial` of one, or an object that can be called. It takes one value;
        further parameters are recognised by their types: `Message`, `Context`, `Batch`, and `Annotated[…, Depends(…)]`.
        Others need a default, and are left alone.

        The handler returns None, one value, or a list of values; each value is published as a message. Or it yields
        values: each is published as it comes, and the input is acknowledged after the last one is confirmed. To give a
        value its own key or properties, return an `Outgoing`.

        Args:
            key: The routing key, or with a topic exchange the pattern, that the queue is bound with. With a `Key` the
                handler must take its type, or bytes.
            queue: The queue's name; None for `APP.NAME`.
            then: The key of the results, or a function that returns it for a result (None: that result goes nowhere).
            name: The stage's name; None for the function's.
            processes: Run the handler, a `def`, in processes of its own.
            batch: The most messages of the list that the handler takes; see `Batch`. None: it takes one message.
            within: Seconds after its first message at which a batch is handed over even if it is not full; None for
                0.05.
            batch_bytes: The most bytes of the bodies of a batch, unless one message has more; None for 4 MiB, the most.
            attempts: How often a message is tried before it becomes a dead letter.
            delays: Seconds to wait after the first, second, … failed attempt; the last one holds for all further ones.
                0 tries again at once: `delays=[0, 5, 60]` for what the first failure often mends.
            time_limit: Seconds that one call of the handler may take, for a message or for a batch.
            concurrency: Calls at once in one worker. None: 100 of an `async def`, 8 threads, or a process for each CPU;
                with `batch`, one call, or a process for each CPU.
            rate: Messages that all workers together may begin in a time: "10/s", "100/m", "5000/h" or "1/d". Each
                attempt counts, and each message of a batch. After a pause, those of a second may begin at once.
            total_concurrency: Calls at once of all workers together, 1 to 100; `concurrency` still limits those of one.
            limit_by: A function that returns the key of a value, such as `lambda order: order.customer`, for the next
                two, which hold for each key over all workers. None as a key: neither holds.
            rate_each: Messages of one key that may begin in a time, as for `rate`; at least "1/m".
            concurrency_each: Calls at once of one key, 1 to 10.
            keep_unknown: Copy the fields of a JSON object that the handler's type does not know to the result.
            exchange: A direct, durable exchange for messages that other stages must not see; None for the app's own.
            single_active: Only one of all workers handles this stage's messages; another takes over when it is gone.
            jitter: Lengthens each of the `delays` at random by up to this share of it, 0 to 1, so that messages that
                failed together do not come again together. In steps of a second or more.
            uncounted: How many retries of one message `Retry(count=False)` may leave uncounted.
            queue_arguments: Further arguments of the queue, such as `{"x-max-length": 1000}`. An existing queue keeps
                those that it has.
            priorities: The highest priority of a message; the queue delivers those of higher priority first. None: the
                queue ignores priorities.
            replies: Send what the handler returns to the caller of its message (`Publisher.call`, or any program that
                sets `reply_to`), whether `then` leads somewhere or not; and the error of a message that failed for
                good.
            idempotent: Handle a message once, whatever copies of it come within the app's `window`. True: messages
                with one id are one. A function: those for whose value it returns the same key, such as
                `lambda order: order.number`, or None for one that is always handled. Keys are kept in the app's
                `store`.
            unknown: None; an error names the option that was meant.

        Raises:
            AppError: The function or an option is invalid; the text names the app, the stage and the parameter.
        """
        _check_given(self.name, "stage(KEY)", key)
        options: dict[str, Any] = {
            "key": name_of(key),
            "queue": queue,
            "then": name_of(then) if isinstance(then, Key) else then,
            "name": name,
            "processes": processes,
            "batch": batch,
            "within": within,
            "batch_bytes": batch_bytes,
            "attempts": attempts,
            "delays": delays,
            "time_limit": time_limit,
            "concurrency": concurrency,
            "keep_unknown": keep_unknown,
            "exchange": exchange,
            "single_active": single_active,
            "jitter": jitter,
            "uncounted": uncounted,
            "queue_arguments": queue_arguments,
            "priorities": priorities,
            "replies": replies,
        }

        limits = {
            "rate": rate,
            "total_concurrency": total_concurrency,
            "limit_by": limit_by,
            "rate_each": rate_each,
            "concurrency_each": concurrency_each,
        }

        def register(handler: H) -> H:
            what = described(self.name, name, handler)
            check_options(what, options | limits | {"idempotent": idempotent}, unknown)
            stage = make_stage(handler, app=self.name, **options | {"key": key, "then": then})
            if idempotent:
                stage = make_idempotent(stage, what, idempotent, app=self.name, store=self.store, window=self.window)
                self._exchanges[stage.queue] = ""  # it sends messages to itself
            key_limit = None
            if limit_by is not None:
                key_limit = make_key_limit(what, self.name, stage.name, limit_by, rate_each, concurrency_each)
            elif rate_each is not None or concurrency_each is not None:
                raise AppError(f"{what}: rate_each=… and concurrency_each=… need limit_by=…, the function of the key")
            if concurrency is None and (rate or total_concurrency):
                # Else a worker would hold more messages than it may begin for long.
                stage = replace(stage, concurrency=min(stage.concurrency, _most_at_once(rate, total_concurrency)))
            for option in ("total_concurrency", "concurrency_each"):
                if limits[option] is not None and batch is not None:
                    raise AppError(f"{what}: {option}=… is for stages without batch=…")
            self._register(handler, stage)
            if key_limit is not None:
                self._key_limits[stage.name] = key_limit
            if rate is not None:
                self._rates[stage.name] = parse_rate(rate)
            if total_concurrency is not None:
                self._totals[stage.name] = total_concurrency
            return handler

        return register

    def join(  # noqa: PLR0913 - the options of a join, each a keyword with a default
        self,
        key: str | Key[Any],
        *,
        of: str,
        within: float = 3600.0,
        late: Late = "dead",
        store: str | None = None,
        queue: str | None = None,
        then: Then = None,
        name: str | None = None,
        processes: bool = False,
        attempts: int = ATTEMPTS,
        delays: Sequence[float] = DELAYS,
        time_limit: float = TIME_LIMIT,
        concurrency: int | None = None,
        exchange: str | None = None,
        jitter: float = 0.0,
        replies: bool = False,
    ) -> Callable[[H], H]:
        """Make a function a stage that runs once for all parts of a job, when the last one has arrived.

        The job is a message of the stage `of`, whose handler returns the list of its parts. Whatever follows from a
        part and is published with `key` is that part here; of several, the first one counts. The handler takes their
        list, in the order of the parts. It runs once, however often a part comes; like any handler it runs again if it
        failed, or if its worker died before its results were confirmed. Middleware and dependencies of scope "message"
        are run for each part. The parts are kept in a store, which needs the extra `records` or `redis`.

        Args:
            key: The routing key of what the parts have become.
            of: The name of the stage whose results are the parts.
            within: Seconds, from the moment that the job was split, in which all parts must arrive.
            late: What happens then. "dead": a dead letter of the reason `late` names the missing parts. "join": the
                handler gets the list of those that are there. Parts that come later are dead letters either way.
            store: The URL of the store, which all workers of this stage share: `sqlite:///FILE`, `postgresql://…` or
                `redis://…`. None: that of the app.
            queue: As for a stage, as are the other arguments.
            then: The key of the results.
            name: The stage's name.
            processes: Run the handler, a `def`, in processes of its own, which open the database.
            attempts: How often a message is tried.
            delays: Seconds to wait after each failed attempt.
            time_limit: Seconds that one call of the handler may take.
            concurrency: Calls at once in one worker.
            exchange: An exchange of its own.
            jitter: Lengthens the delays at random.
            replies: Send what the handler returns to the caller of the message that was split (`Publisher.call`); and
                the error of a job that failed for good.

        Raises:
            AppError: The function or an option is invalid. That `of` names no stage is raised by `validate`.
        """
        _check_given(self.name, "join(KEY, of=…)", key)
        options: dict[str, Any] = {
            "key": name_of(key),
            "queue": queue,
            "then": name_of(then) if isinstance(then, Key) else then,
            "name": name,
            "processes": processes,
            "within": within,
            "attempts": attempts,
            "delays": delays,
            "time_limit": time_limit,
            "concurrency": concurrency,
            "exchange": exchange,
            "jitter": jitter,
            "replies": replies,
        }

        def register(handler: H) -> H:
            what = described(self.name, name, handler)
            check_options(what, options | {"of": of, "late": late, "store": store}, ())
            options_of_stage = _JOINS_HAVE_NO | options | {"key": key, "then": then, "within": None}
            plain = make_stage(handler, app=self.name, takes_parts=True, **options_of_stage)
            stage, join = make_join(
                plain, what, app=self.name, of=of, within=within, late=late, store=store or self.store
            )
            self._register(handler, stage)
            self._joins[stage.name] = join
            self._exchanges[stage.queue] = ""  # a join sends messages to itself
            return handler

        return register

    def every(self, interval: str | float | timedelta, *, missed: Missed = "last") -> Callable[[H], H]:
        """Call a function at the whole multiples of an interval since 1970-01-01T00:00Z: a decorator.

        The function takes a `Tick`. Above `@app.stage(KEY, …)` it gives that stage a schedule; alone it makes the
        function a stage, with its name as the key. Each tick is one message of the stage, whatever the number of
        workers: retries, dead letters, pauses and `then` are as for every other message. The state is a message on the
        broker, so a tick is published once even if workers are killed. A worker must run for ticks to come; several
        may, and one takes over when another is gone.

        Args:
            interval: '30s', '5m', '1h30m', '7d', a number of whole seconds, or a timedelta; 1 second to 366 days.
            missed: What becomes of ticks that came while no worker ran. "last": the last one is published, late. "all":
                each is. "skip": the last one is if it is at most a minute late, and the others are not.

        Raises:
            AppError: The interval or the function is invalid, or the stage has a schedule.
        """
        _check_given(self.name, 'every("5m")', interval)

        def register(handler: H) -> H:
            return self._schedule(handler, lambda what: every(interval, missed, what), missed)

        return register

    def cron(self, expression: str, *, timezone: str = "UTC", missed: Missed = "last") -> Callable[[H], H]:
        """Call a function at the times of a cron expression: a decorator; see `every`. It needs the extra `cron`.

        When the clock of the zone is changed, an expression with given hours and minutes ticks once, as with Debian's
        cron: a time that is left out comes with the next minute that exists, one that comes twice counts once.

        Args:
            expression: Minute, hour, day of month, month and day of week, as `0 6 * * 1-5`; with six fields the first
                one is the second.
            timezone: The zone of these times, as `Europe/Dublin`.
            missed: As for `every`.

        Raises:
            AppError: The expression, the zone or the function is invalid, or the stage has a schedule.
        """
        _check_given(self.name, 'cron("0 6 * * *")', expression)

        def register(handler: H) -> H:
            return self._schedule(handler, lambda what: cron(expression, timezone, missed, what), missed)

        return register

    def _schedule(self, handler: H, make: Callable[[str], Schedule], missed: object) -> H:
        what = described(self.name, None, handler)
        check_missed(missed, what)
        schedule = make(what)
        name = next((name for name, function in self._functions.items() if function is handler), None)
        if name is None:
            name = called(handler)
            self.stage(name)(handler)
        stage = self.stages[name]
        if stage.name in self._schedules:
            raise AppError(
                f"{what}: it has a schedule already ({self._schedules[stage.name].when}): one for each stage"
            )
        if stage.value_codec.type not in (Tick, bytes):
            raise AppError(
                f"{what}: parameter {stage.signature.value!r} must be a rabbitry.Tick, since it is scheduled"
            )
        self._schedules[stage.name] = schedule
        return handler

    def lifespan(self, function: H) -> H:
        """Run a function around the life of each worker of this app: a decorator.

        The function yields once (`async def` or `def`), or was made by `contextlib.asynccontextmanager` or
        `contextlib.contextmanager`. What is before the `yield` runs when the worker has connected, before it takes the
        first message; what is after it runs when the last handler has ended, before the worker disconnects. Its
        parameters may be dependencies of scope "worker". Of several, the first one declared is the outermost. An error
        in it ends the worker. It runs in the worker's event loop, and not in the processes of `processes=True`.

        Raises:
            AppError: The function does not yield, or has parameters that can't be given.
        """
        self._lifespans.append(lifespan_of(function, f"app {self.name!r}, lifespan"))
        return function

    @overload
    def middleware(self, function: H, /) -> H: ...
    @overload
    def middleware(self, /, *, stages: Collection[str] | None = None) -> Callable[[H], H]: ...
    def middleware(self, function: Any = None, /, *, stages: Collection[str] | None = None) -> Any:
        """Run a function around each call of a handler: a decorator, with or without arguments.

        The function takes the message (`Message`, or `list[Message]` around handlers of batches) and a function
        `call_next`, and returns what `call_next()` returned, or something else in its place. Errors of the handler and
        of its dependencies pass through it. An `async def` middleware is for `async def` handlers, a `def` for handlers
        that run in threads; none is for `processes=True`. Around a generator, `call_next()` returns None when its last
        value was yielded. Of several, the first one declared is the outermost.

        Args:
            function: The middleware.
            stages: The names of the stages that it is for; None for all, which then must be of its kind.

        Raises:
            AppError: The function is no middleware. That it does not fit a stage is raised by `validate`.
        """

        def register(function: H) -> H:
            self._middlewares.append(middleware_of(function, stages, self.name))
            return function

        return register if function is None else register(function)

    def key(self, name: str, type: type[T], *, version: int = 1) -> Key[T]:
        """Declare the type of the messages with a routing key, and return a `Key` to be used in its place.

        What is published with it, or with its name, must be of this type: type checkers see it with the `Key`, and
        publishers, contexts and the harness compare when they run. So does a worker with the results of a stage whose
        `then` is the `Key`.

        Args:
            name: The routing key.
            type: The type of a message's value, as a handler's.
            version: Raised with a change of the type after which older workers can't read the messages. Each message
                says its version; workers leave one that is newer than their own to workers that know it.

        Raises:
            AppError: The key has another type or version already, or the type can't be decoded.
        """
        what = f"app {self.name!r}, key {name!r}"
        check_options(what, {"key": name, "version": version}, ())
        try:
            key = make_key(name, type, version)
        except (TypeError, ValueError) as error:
            raise AppError(f"{what}: type={type!r} can't be decoded: {error}") from error
        known = self._types.setdefault(name, key)
        if (known.type, known.version) != (type, version):
            raise AppError(
                f"{what}: it is version {known.version} of {known.type} already, and can't be version {version} of "
                f"{type} too"
            )
        return key

    def output(
        self,
        key: str | Key[Any],
        *,
        queue: str | None = None,
        required: bool = True,
        exchange: str | None = None,
        single_active: bool = False,
        queue_arguments: Mapping[str, Argument] | None = None,
    ) -> None:
        """Declare that messages leave the app with `key`, for other programs to read.

        Args:
            key: The routing key.
            queue: A queue to declare and bind, so that what is published waits there; None for none.
            required: False lets messages with this key go nowhere if nobody has bound a queue.
            exchange: As for a stage.
            single_active: The queue is that of another app's stage with single_active=True.
            queue_arguments: Further arguments of the queue, as for a stage.

        Raises:
            AppError: The key is an output already.
        """
        key = name_of(key)
        if key in self.outputs:
            raise AppError(f"app {self.name!r}: output {key!r} was given before")
        what = f"app {self.name!r}, output {key!r}"
        check_options(what, {"key": key, "queue_arguments": queue_arguments}, ())
        if queue_arguments and (queue is None or self.plain):
            raise AppError(f"{what}: queue_arguments=… needs a queue=… that is not a plain app's")
        self.outputs[key] = Output(
            key, queue, required, exchange, single_active and not self.plain, dict(queue_arguments or {})
        )
        if exchange:
            self._exchanges.setdefault(key, exchange)

    def _register(self, handler: H, stage: Stage) -> H:
        check_queue(stage, plain=self.plain, queue_type=self.queue_type)
        for other in self.stages.values():
            if other.name == stage.name:
                raise AppError(f"{stage.where}: stage {stage.name!r} is there already: {other.where}")
            if other.queue == stage.queue:
                raise AppError(f"{stage.where}: queue {stage.queue!r} is already that of {other.where}")
        self.stages[stage.name] = stage
        self._functions[stage.name] = handler
        if stage.exchange:
            self._exchanges.setdefault(stage.key, stage.exchange)
        if stage.kind == "process":
            handler.__rabbitry_stage__ = stage  # type: ignore[attr-defined] # worker processes find it there
        return handler


def _most_at_once(rate: str | None, total: int | None) -> int:
    """Return how many calls at once a worker of a stage with these limits needs at most."""
    limits = [MOST_UNACKED if total is None else total, MOST_UNACKED if rate is None else parse_rate(rate).ahead]
    return min(limits)


def _check_given(app: str, decorator: str, first: object) -> None:
    """Raise AppError for a decorator without arguments, which Python calls with the function."""
    if callable(first):
        raise AppError(f"app {app!r}: write @app.{decorator} above {called(first)!r}, with its arguments")
