"""Worker processes for `processes=True`: one message at a time goes in, its result comes out.

The handler is imported by name in a fresh process. A process that exceeds the time limit is killed. A process that dies
costs its message an attempt, and does not affect the worker.
"""

from __future__ import annotations

import atexit
import contextvars
import importlib
import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack, nullcontext, suppress
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Final, NamedTuple

from rabbitry._errors import described
from rabbitry.amqp.client import BrokerURL
from rabbitry.amqp.client.url import entered
from rabbitry.flow import _tracing
from rabbitry.flow.exceptions import AppError, TimeLimitExceeded, WorkerProcessDied
from rabbitry.flow.message import Message, Undecoded, metadata
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._dependencies import Given, set_up
from rabbitry.flow.worker._executors import handling, spawning
from rabbitry.flow.worker._executors.invoker import Invoker, Put
from rabbitry.flow.worker._executors.results import Body, failed
from rabbitry.flow.worker._job import ABANDONED, BatchJob, Product, Result, Work

if TYPE_CHECKING:
    import sys

    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection as Connection
    else:
        from multiprocessing.connection import Connection

_context: Final = multiprocessing.get_context("spawn")
_PATIENCE: Final = 5.0
_START_LIMIT: Final = 60.0
"""Seconds that a process may take to start and to import its handler."""
_AHEAD: Final = 2
"""Groups of values that a process may send ahead of the worker's answers, so that neither waits for each group."""
_MOST: Final = 128
_LARGEST: Final = 1 << 20
"""Values, and bytes of their bodies, that a process sends at once at most, but for a single larger one."""
_GATHERING: Final = 0.1
"""Seconds in which values that follow each other are gathered."""
_CLOSING: Final = 0.5
"""Seconds that a generator has to come to its next value, and to end, once it is told to."""


class ProcessSlot:
    """One process at a time, started when first needed. For one thread, its owner.

    Only `kill` and `interrupt` are for any thread.

    Only the owner closes the pipe and waits for the process, so it never reads from a closed pipe. Messages that the
    handler publishes without a URL go to `broker`.
    """

    def __init__(self, stage: Stage, broker: BrokerURL | None = None) -> None:
        self._stage = stage
        self._broker = broker
        self._lock = threading.Lock()
        self._is_killed = False
        self._work: Work | None = None
        """The work that the process handles now."""
        self._is_interrupted = False
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process, which imports the handler.

        Raises AppError if it can't, WorkerProcessDied if it ends or is not ready in time.
        """
        try:
            self._start()
        except (EOFError, OSError) as error:
            raise self._died(
                error, f"stage '{self._stage.name}': ", " before it was ready; what it printed says why"
            ) from error

    def start_again(self) -> None:
        """Start the process if there is none, so that `call` need not. If this fails, `call` reports the error."""
        if self._pipe is None:
            with suppress(EOFError, OSError, AppError):
                self._start()

    def call(self, work: Work, put: Put) -> Result:
        """Handle one message, or a batch, in the process. Its death or a timeout is a result, too."""
        with self._lock:
            if work.is_dropped:  # it was cancelled before `interrupt` could find it here
                return ABANDONED
            self._work, self._is_interrupted = work, False
        try:
            return self._call(work, put)
        finally:
            with self._lock:
                self._work, is_interrupted = None, self._is_interrupted
            if is_interrupted:  # the process may have answered before it died
                self._reap(at_once=True)

    def _call(self, work: Work, put: Put) -> Result:
        stage = work.stage
        try:
            pipe = self._pipe or self._start()
            is_asked = stage.batch is None or stage.signature.message is not None or _tracing.is_used()
            pipe.send((work.body, [job.undecoded for job in work.jobs] if is_asked else []))
            result = self._answer(work, pipe, put)
        except (EOFError, OSError) as error:
            _note_killed(work)
            return failed(self._died(error))
        except Exception as error:  # noqa: BLE001 - a result, as any failure; and what else comes over this pipe is none
            _note_killed(work)
            self._reap(at_once=True)
            return failed(error)
        return result

    def _answer(self, work: Work, pipe: Connection, put: Put) -> Result:
        """Publish what the handler yields, and return its result. Raises EOFError and OSError if the process dies.

        Each group of values is answered: True lets the generator go on, False has it closed.
        """
        stage = work.stage
        until = time.monotonic() + stage.time_limit
        while pipe.poll(max(0.0, until - time.monotonic())):
            sent: _Sent = pipe.recv()
            are_wanted = not sent.number or put(sent.yielded)
            if sent.result is not None:
                return sent.result if are_wanted else ABANDONED
            pipe.send(are_wanted)
            if not are_wanted:
                if not self._close_generator(pipe):
                    self._reap(at_once=True)
                return ABANDONED
        limit = f"not done within the stage's time limit of {stage.time_limit:g} s"
        if not stage.yields or not self._close_generator(pipe):
            self._reap(at_once=True)
            _note_killed(work)
            limit = f"{limit}; its process was killed"
        return failed(TimeLimitExceeded(limit))

    def _close_generator(self, pipe: Connection) -> bool:
        """Refuse all further values, so that the generator is closed; returns whether it has ended in time."""
        until = time.monotonic() + _CLOSING
        while pipe.poll(max(0.0, until - time.monotonic())):
            sent: _Sent = pipe.recv()
            if sent.result is not None:
                return True
            pipe.send(False)
        return False

    def _died(self, cause: Exception, before: str = "", more: str = "") -> WorkerProcessDied:
        code = self._reap()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        died = WorkerProcessDied(f"{before}the process of the handler ended with {how}{more}")
        died.__cause__ = cause
        return died

    def kill(self) -> None:
        """Kill the process for good. The owner, which waits for the process or starts it, sees that it died."""
        with self._lock:
            self._is_killed = True
            if self._process is not None:
                self._process.kill()

    def interrupt(self, work: Work) -> None:
        """Kill the process if it handles this work. The next one gets another."""
        with self._lock:
            if self._work is work:
                self._is_interrupted = True
                if self._process is not None:
                    self._process.kill()

    def close(self) -> None:
        """End the process in order: it is idle, and ends when its pipe does."""
        self._reap()

    def _start(self) -> Connection:
        ours, theirs = _context.Pipe()
        handler = self._stage.handler
        process = _context.Process(
            target=_serve, args=(theirs, handler.__module__, handler.__qualname__, self._broker), daemon=True
        )
        with self._lock:
            if self._is_killed:
                raise EOFError("the worker stops")
            spawning.start(process)
            self._process = process
        theirs.close()  # so that its end is seen here
        self._pipe = ours
        # At the end of this program multiprocessing would wait for it, which takes no SIGTERM.
        atexit.register(self.kill)
        # What starting takes is not the handler's: imports may be slow, and the machine busy.
        if not ours.poll(_START_LIMIT):
            self._reap(at_once=True)
            raise EOFError(f"the process was not ready after {_START_LIMIT:g} s")
        problem: str | None = ours.recv()
        if problem is not None:
            self._reap()
            raise AppError(f"{self._stage.where}: processes=True: a process can't {problem}")
        return ours

    def _reap(self, *, at_once: bool = False) -> int | None:
        """Close the pipe, wait for the process, and return its exit code. at_once: kill it first."""
        atexit.unregister(self.kill)
        pipe, self._pipe = self._pipe, None
        with self._lock:
            process, self._process = self._process, None  # nobody else touches it from here on
        if process is not None and at_once:
            process.kill()
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return code


def _note_killed(work: Work) -> None:
    if isinstance(work, BatchJob):
        work.is_killed = True


def _serve(pipe: Connection, module: str, name: str, broker: BrokerURL | None) -> None:
    """Run in the process: handle messages until the worker closes its end of the pipe or dies."""
    # The worker decides what becomes of its processes: Ctrl-C goes to the whole group of a terminal, and a service
    # manager's SIGTERM to all processes of a service. What a handler starts must not inherit that it is ignored, so
    # SIGTERM has a handler that does nothing, which exec resets.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with nullcontext() if broker is None else entered(broker):
        _handle_all(pipe, module, name)


def _handle_all(pipe: Connection, module: str, name: str) -> None:
    with ExitStack() as life:  # of the dependencies of scope "worker": as long as the process
        doing = "import the handler"
        try:
            stage = _stage_of(module, name)
            doing, given = "begin", Given({})
            set_up(stage.signature.plan.of_scope("worker"), given, life)
        except BaseException as error:  # noqa: BLE001 - a module may raise anything; the worker says it
            pipe.send(f"{doing}: {described(error)}")
            return
        pipe.send(None)  # ready
        invoker = Invoker(stage, instances=given.instances)
        values = _Values(pipe)
        while True:
            try:
                body, received = pipe.recv()
            except (EOFError, OSError):
                return
            values.begin()
            result = contextvars.copy_context().run(handling.call, invoker, _Input(stage, body, received), values.put)
            values.end(result)


class _Values:
    """The values that a handler yields, on their way to the worker; in the process.

    A value is sent at once, unless another value was sent a moment ago. Values that follow each other so closely are
    sent together; if no further value comes, a thread sends them. Sending each value alone would cost both sides two
    system calls, a pickle and thread switches (`make bench-crawl`).
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        """Held while values are sent, so that their order stays. What follows is written under it alone."""
        self._count = 0
        self._products: list[Product] = []
        self._context: bytes | None = None
        self._size = 0
        self._sent_at = 0.0
        self._unanswered = 0
        """Groups that the worker has not answered."""
        self._are_wanted = True
        self._is_one_waiting = threading.Event()
        self._sender: threading.Thread | None = None

    def begin(self) -> None:
        """Begin with the values of another call; the first one is sent at once."""
        self._are_wanted = True
        self._sent_at = 0.0

    def put(self, result: Result | None) -> bool:
        """See `Put`."""
        with self._lock:
            if result is not None:
                if result.context != self._context:
                    if self._products:
                        self._send()
                    self._context = result.context
                self._products += result.products
                self._size += sum(len(product.body) for product in result.products)
            self._count += 1
            is_due = time.monotonic() - self._sent_at >= _GATHERING
            if is_due or self._count >= _MOST or self._size >= _LARGEST:
                self._send()
        if self._count == 1:  # the sender is told of the first value of a group; it sends all that there are then
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_waiting, name="yielded values", daemon=True)
                self._sender.start()
            self._is_one_waiting.set()
        while self._unanswered > _AHEAD:
            self._read()
        return self._are_wanted

    def end(self, result: Result) -> None:
        """Send a handler's result, after all that it yielded, and read the answers that are left."""
        with self._lock:
            self._send(result)
        while self._unanswered:
            self._read()

    def _send_waiting(self) -> None:
        while self._is_one_waiting.wait():
            time.sleep(_GATHERING)
            # Cleared before the look, so that a value that is put in after it sets it again.
            self._is_one_waiting.clear()
            with self._lock, suppress(MemoryError):  # then they go with the next value, or with the result
                if self._count:
                    self._send()

    def _send(self, result: Result | None = None) -> None:
        products = tuple(self._products)
        yielded = Result("yielded", products, context=self._context) if products else None
        try:
            self._pipe.send(_Sent(self._count, yielded, result))
        except OSError:
            os._exit(1)  # the worker is gone
        if result is None:
            self._unanswered += 1
        self._count, self._products, self._size, self._sent_at = 0, [], 0, time.monotonic()

    def _read(self) -> None:
        try:
            self._are_wanted &= self._pipe.recv()
        except (EOFError, OSError):
            os._exit(1)  # the worker is gone
        with self._lock:
            self._unanswered -= 1


class _Sent(NamedTuple):
    """One piece of data from a process: values that its handler yielded, and its result if it ended.

    number: the number of values, which are answered if there is no result. yielded: those of them with a destination.
    """

    number: int
    yielded: Result | None
    result: Result | None


class _Input:
    """The input of a call in a process, where the metadata is read, so that the worker need not."""

    is_cancelled = False
    is_stale = False

    def __init__(self, stage: Stage, body: Body, received: list[Undecoded]) -> None:
        self.body = body
        self._stage = stage
        self._received = received

    def message(self) -> Message | list[Message]:
        """Read the metadata."""
        messages = [metadata(one, self._stage.name, self._stage.queue) for one in self._received]
        return messages[0] if self._stage.batch is None else messages


def _stage_of(module: str, name: str) -> Stage:
    found: object = importlib.import_module("__mp_main__" if module == "__main__" else module)
    for part in name.split("."):
        found = getattr(found, part)
    stage: Stage = found.__rabbitry_stage__  # type: ignore[attr-defined] # App.stage put it there
    return stage
