"""App: the stages of a distributed system, and their names on the broker."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from rabbitry.flow._declaring import Declarations
from rabbitry.flow._validating import check_app
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.key import Key
from rabbitry.flow.once import WINDOW
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.spec import AppSpec, ExchangeType, QueueType

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL
    from rabbitry.amqp.protocol.tables import Table
    from rabbitry.flow.blocking import BlockingPublisher
    from rabbitry.flow.publisher import Publisher
    from rabbitry.flow.timing import Times
    from rabbitry.flow.worker import Worker

T = TypeVar("T")
_EXCHANGE_TYPES: Final = ("direct", "topic", "fanout")
_LONGEST_NAME: Final = 200  # a short string has 255 bytes, and ours append to it


class App(Declarations):
    """A distributed application: plain functions, each a stage, joined by an exchange.

        app = rabbitry.App("shop")

        @app.stage("order", then="bill")
        async def price(order: Order) -> Bill: ...

        app.output("bill", queue="bills")

    `stage`, `join`, `every` and `cron` make functions stages; `key` and `output` declare what they exchange; `worker`
    runs them, as does the command `rabbitry worker MODULE:app`; `publish` and `publisher` send messages to them.

    Args:
        name: The `app_id` of its messages, and the prefix of the names of the queues that Rabbitry makes for it.
        exchange: The exchange's name; None for the app's own name.
        exchange_type: "direct", "topic" or "fanout".
        queue_type: Of the stages' queues, "classic" or "quorum".
        plain: Declare exchange and queues as programs do that say nothing about them (not durable, no arguments),
            so that these can join.
        cancellable: Let its jobs be cancelled by `Publisher.cancel` and `rabbitry cancel`. Each worker then listens for
            that, over an exclusive queue of its own.
        auto_delete: Names of the exchange and of queues that a plain app declares auto-delete too, as amqplib does.
        store: The URL of the store of joins, idempotent stages and unique messages: `sqlite:///FILE`,
            `postgresql://USER@HOST/NAME` or `redis://HOST/NUMBER`. None: RABBITRY_DATABASE, or SQLite
            in the user's data folder.
        window: Seconds, or a timedelta, for which idempotent stages and unique messages know what was done.

    Raises:
        AppError: A name, type or combination is invalid.
    """

    def __init__(  # noqa: PLR0913 - the options of an app, each a keyword with a default
        self,
        name: str,
        *,
        exchange: str | None = None,
        exchange_type: ExchangeType = "direct",
        queue_type: QueueType = "classic",
        plain: bool = False,
        cancellable: bool = False,
        auto_delete: Collection[str] = (),
        store: str | None = None,
        window: float | timedelta = WINDOW,
    ) -> None:
        _check_types(name, auto_delete, store, plain=plain, cancellable=cancellable)
        if not name or len(name.encode()) > _LONGEST_NAME or name.startswith("amq."):
            raise AppError(f"an app can't be called {name!r}: 1 to {_LONGEST_NAME} bytes, not beginning with 'amq.'")
        if exchange == "":
            raise AppError(f"app {name!r}: the default exchange can't be bound to; give another")
        if exchange_type not in _EXCHANGE_TYPES:
            raise AppError(f"app {name!r}: exchange_type is one of {', '.join(_EXCHANGE_TYPES)}")
        if queue_type not in ("classic", "quorum") or (plain and queue_type != "classic"):
            raise AppError(f"app {name!r}: queue_type is classic or quorum, and classic if plain")
        seconds = window.total_seconds() if isinstance(window, timedelta) else window
        if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise AppError(f"app {name!r}: window={window!r}: give positive seconds, or a timedelta")
        super().__init__(name, plain=plain, queue_type=queue_type, store=store, window=float(seconds))
        self.exchange: str = name if exchange is None else exchange
        self.exchange_type: ExchangeType = exchange_type
        self.cancellable: bool = cancellable
        self.auto_delete: frozenset[str] = frozenset(auto_delete)
        self.workers: list[Worker] = []
        """Those that run in this process, oldest first; each is in it from before its first handler begins until its
        last has ended."""

    def __repr__(self) -> str:
        return f"<App {self.name!r}: {', '.join(self.stages) or 'no stages'}>"

    def validate(self) -> None:
        """Check the app as a whole.

        Raises:
            AppError: A `then` leads nowhere, or a middleware does not fit a stage.
        """
        check_app(self.spec())

    def spec(self) -> AppSpec:
        """Return the app's frozen description, which workers and publishers made now will use."""
        return AppSpec(
            name=self.name,
            exchange=self.exchange,
            exchange_type=self.exchange_type,
            queue_type=self.queue_type,
            plain=self.plain,
            cancellable=self.cancellable,
            auto_delete=self.auto_delete,
            stages=dict(self.stages),
            outputs=dict(self.outputs),
            exchanges=dict(self._exchanges),
            types=dict(self._types),
            lifespans=tuple(self._lifespans),
            middlewares=tuple(self._middlewares),
            joins=dict(self._joins),
            schedules=dict(self._schedules),
            rates=dict(self._rates),
            totals=dict(self._totals),
            key_limits=dict(self._key_limits),
            store=self.store,
            window=self.window,
        )

    def worker(
        self,
        url: str | BrokerURL | None = None,
        *,
        stages: Sequence[str] | None = None,
        concurrency: int | None = None,
        strict: bool = False,
        connect_attempts: int | None = None,
        id: str | None = None,
    ) -> Worker:
        """Return a worker, to be entered with `async with`; it handles messages until the block is left.

        Args:
            url: The broker; None: see `rabbitry.connect`.
            stages: Names of the stages to run; None for all.
            concurrency: Calls at once of each stage; None for the stage's own number.
            strict: Raise TopologyMismatch if something exists on the broker with other flags.
            connect_attempts: See `Worker`.
            id: See `Worker`.

        Raises:
            AppError: The app has no stages, or a `then` leads nowhere.
            UsageError: A stage's name is unknown.
        """
        from rabbitry.flow.worker import Worker

        self.validate()
        if not self.stages:
            raise AppError(f"app {self.name!r} has no stages to run: decorate a function with @app.stage(KEY)")
        return Worker(
            self.spec(),
            url,
            stages,
            running=self.workers,
            concurrency=concurrency,
            strict=strict,
            connect_attempts=connect_attempts,
            id=id,
        )

    def publisher(self, url: str | BrokerURL | None = None, *, strict: bool = False) -> Publisher:
        """Return a publisher, to be entered with `async with`; it declares the app's topology first.

        An app without stages has one too: with `app.output(KEY, queue=…)` a web process that only publishes names the
        queues of other programs.

        Args:
            url: The broker. None means that of the app's worker if one runs in this process; otherwise see
                `rabbitry.connect`.
            strict: Raise TopologyMismatch if something exists on the broker with other flags.
        """
        from rabbitry.flow.publisher import Publisher

        self.validate()
        return Publisher(self.spec(), lambda: self._default_url() if url is None else url, strict=strict)

    def publisher_blocking(self, url: str | BrokerURL | None = None, *, strict: bool = False) -> BlockingPublisher:
        """Return a publisher for programs without asyncio, to be entered with `with`; see `publisher`."""
        from rabbitry.flow.blocking import BlockingPublisher

        return BlockingPublisher(self.publisher(url, strict=strict))

    async def publish(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        headers: Table | None = None,
        unique: str | None = None,
        url: str | BrokerURL | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish one value and return the message's id once the broker has confirmed it.

        After cancelling, the outcome is unknown.

        Args:
            value: The body: a value of a stage's type, text, or bytes.
            key: The routing key.
            headers: See `Publisher.publish`.
            unique: See `Publisher.publish`.
            url: The broker. None uses the connection of the app's worker if one runs in this process, as in a handler;
                otherwise see `rabbitry.connect`. Without such a worker, each call opens a connection: to publish more
                than a few messages, keep a `publisher`.
            times: `after`, `at`, `expires` and `expired`, as for `Publisher.publish`.

        Raises:
            UsageError: The key leads nowhere, or the value can't be encoded.
            PublishError: The broker did not take the message.
            ConnectFailed: No broker can be reached.
        """
        if url is None and (worker := self._worker()) is not None:
            return await worker.publish(value, key=key, headers=headers, unique=unique, **times)
        async with self.publisher(url) as publisher:
            return await publisher.publish(value, key=key, headers=headers, unique=unique, **times)

    def publish_blocking(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        headers: Table | None = None,
        unique: str | None = None,
        url: str | BrokerURL | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish one value as `publish` does, without an event loop."""
        if url is None and (worker := self._worker()) is not None:
            return worker.publish_blocking(value, key=key, headers=headers, unique=unique, **times)
        with self.publisher_blocking(url) as publisher:
            return publisher.publish(value, key=key, headers=headers, unique=unique, **times)

    def _worker(self) -> Worker | None:
        """Return the worker that the app publishes through if it is given no URL; None if none runs here.

        Of several it is the newest, and in a handler the newest that is connected if the handler's worker is.
        """
        from rabbitry.amqp.client.url import current

        newest_first = self.workers[::-1]
        here = [worker for worker in newest_first if worker.url == current.get()]
        return next(iter(here or newest_first), None)

    def _default_url(self) -> BrokerURL | None:
        worker = self._worker()
        return None if worker is None else worker.url


def _check_types(name: object, auto_delete: object, store: object, **flags: object) -> None:
    if not isinstance(name, str):
        raise AppError(f"an app's name must be text, not {type(name).__name__}")
    for option, value in flags.items():
        if not isinstance(value, bool):
            raise AppError(f"app {name!r}: {option}={value!r}: must be True or False")
    if isinstance(auto_delete, str):
        raise AppError(f"app {name!r}: auto_delete={auto_delete!r}: must be a list of names")
    if store is not None and not isinstance(store, str):
        raise AppError(f"app {name!r}: store={store!r}: must be a URL, or None")
