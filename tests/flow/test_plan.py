"""Dependencies as they are read when a handler is declared: their order, and errors that name what can't be given."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest

import rabbitry
from rabbitry import Depends


class Pool:
    """A class that is made without arguments, entered and left."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None: ...


def settings() -> dict[str, str]:
    return {}


async def engine(found: Annotated[dict[str, str], Depends(settings, scope="worker")]) -> AsyncIterator[str]:
    yield str(found)


def session(
    engine: Annotated[str, Depends(engine, scope="worker")], message: rabbitry.Message, size: int = 1
) -> Iterator[str]:
    yield engine + message.id


@contextlib.contextmanager
def transaction(session: Annotated[str, Depends(session)]) -> Iterator[str]:
    yield session


def test_each_dependency_is_made_once_and_after_what_it_needs() -> None:
    app = rabbitry.App("planned")

    @app.stage("in")
    async def handle(
        text: str,
        one: Annotated[str, Depends(transaction)],
        two: Annotated[str, Depends(session)],
        pool: Annotated[Pool, Depends(Pool)],
    ) -> None: ...

    plan = app.stages["handle"].signature.plan
    found = [(each.name, each.scope, each.is_async, each.cleans_up) for each in plan.providers]
    assert found == [
        ("settings", "worker", False, False),
        ("engine", "worker", True, True),
        ("session", "message", False, True),
        ("transaction", "message", False, True),
        ("Pool", "message", False, True),
    ]
    assert [provider.takes_message for provider in plan.providers if provider.name == "session"] == [("message",)]


def untyped(something) -> None: ...  # type: ignore[no-untyped-def] # that is what is tested


def unknown(something: int) -> None: ...


def of_worker(message: rabbitry.Message) -> None: ...


def longer(session: Annotated[str, Depends(session)]) -> None: ...


def itself(value: "Annotated[str, Depends(itself)]") -> None: ...


async def waits() -> None: ...


def acts(context: rabbitry.Context) -> None: ...


@pytest.mark.parametrize(
    ("depends", "text"),
    [
        (Depends(untyped), "parameter 'something' has no type"),
        (Depends(unknown), "parameter 'something': a dependency takes rabbitry.Message"),
        (Depends(of_worker, scope="worker"), "parameter 'message': scope='worker' has no message"),
        (Depends(longer, scope="worker"), "as long as the worker, and its parameter 'session' only for a message"),
        (Depends(itself), "dependency 'itself' needs itself"),
        (Depends("settings"), r"Depends\('settings'\): give a function"),  # type: ignore[arg-type] # tested
        (Depends(settings, scope="app"), "a scope is 'message' or 'worker'"),  # type: ignore[arg-type] # tested
    ],
)
def test_a_dependency_that_can_not_be_given_is_named(depends: Depends, text: str) -> None:
    async def handle(text: str, made: Annotated[Any, depends]) -> None: ...

    with pytest.raises(rabbitry.AppError, match=text) as caught:
        rabbitry.App("wrong").stage("in")(handle)
    assert "app 'wrong', stage 'handle'" in str(caught.value)
    assert "parameter 'made'" in str(caught.value)


def in_process(text: str, made: Annotated[Any, Depends(waits, scope="worker")]) -> None: ...


def acts_in_process(text: str, made: Annotated[Any, Depends(acts)]) -> None: ...


def asks_in_process(text: str, context: rabbitry.Context) -> None: ...


def in_thread(text: str, made: Annotated[Any, Depends(waits)]) -> None: ...


def of_batches(texts: list[str], context: rabbitry.Context) -> None: ...


def takes_message_of_batches(texts: list[str], made: Annotated[Any, Depends(session)]) -> None: ...


def old_style(text: str, made: Any = Depends(settings)) -> None: ...  # noqa: B008 # as FastAPI had it


@pytest.mark.parametrize(
    ("handler", "options", "text"),
    [
        (in_process, {"processes": True}, "dependency 'waits' is asynchronous, and a `def` handler can't wait for it"),
        (acts_in_process, {"processes": True}, "dependency 'acts': processes=True has no rabbitry.Context"),
        (asks_in_process, {"processes": True}, "parameter 'context': processes=True has no rabbitry.Context"),
        (in_thread, {}, "dependency 'waits' is asynchronous.*or give it scope='worker'"),
        (of_batches, {"batch": 5}, "rabbitry.Context is for handlers of single messages"),
        (takes_message_of_batches, {"batch": 5}, "dependency 'session': .*a batch has no single message"),
        (old_style, {}, r"write `made: Annotated\[TYPE, Depends"),
    ],
)
def test_what_a_handler_can_not_get_where_it_runs_is_refused(
    handler: Callable[..., Any], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(rabbitry.AppError, match=text):
        rabbitry.App("wrong").stage("in", **options)(handler)


class Sender:
    """An object that is a handler."""

    async def __call__(self, text: str) -> str:
        return text


def limited(prefix: str, text: str, limit: int) -> str:
    return prefix + text[:limit]


def yields(prefix: str, text: str) -> Iterator[str]:
    yield prefix + text


def test_partials_objects_and_methods_are_handlers() -> None:
    app = rabbitry.App("callables")
    app.stage("object")(Sender())
    app.stage("partial")(functools.partial(limited, "> ", limit=3))
    app.stage("method", name="method")(Sender().__call__)
    app.stage("generator", name="generator")(functools.partial(yields, "> "))
    stages = app.stages
    assert [(stage.name, stage.kind, stage.yields) for stage in stages.values()] == [
        ("Sender", "async", False),
        ("limited", "thread", False),
        ("method", "async", False),
        ("generator", "thread", True),
    ]
    assert stages["limited"].signature.value == "text"
    with pytest.raises(rabbitry.AppError, match="top of its module"):
        app.stage("process", name="process", processes=True)(functools.partial(limited, "> ", limit=3))
    with pytest.raises(rabbitry.AppError, match="5 can't be a handler: it is no function"):
        app.stage("number")(5)  # type: ignore[type-var] # that is what is tested
