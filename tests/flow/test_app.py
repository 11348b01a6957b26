"""What an app says about handlers, stages and keys that make no sense, before anything is declared."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

import rabbitry


class Broken:
    """A type that no JSON can be decoded to."""


class Holds(msgspec.Struct):
    """A type that holds one."""

    broken: Broken


def untyped(value): ...  # type: ignore[no-untyped-def] # that is what is tested


async def two_values(one: str, two: str) -> None: ...


async def none_at_all() -> None: ...


async def broken(value: Broken) -> None: ...


async def holds(value: Holds) -> None: ...


async def many(*values: str) -> None: ...


async def unknown_name(value: "NoSuchType") -> None: ...  # type: ignore[name-defined]  # noqa: F821 # tested


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (untyped, "has no type"),
        (two_values, "one value"),
        (none_at_all, "one value"),
        (broken, "can't be decoded"),
        (holds, "can't be decoded"),
        (many, "given by name"),
        (unknown_name, "NoSuchType"),
    ],
)
def test_an_invalid_handler_is_refused_with_its_file(handler: Callable[..., Any], text: str) -> None:
    with pytest.raises(rabbitry.AppError, match=text) as caught:
        rabbitry.App("wrong").stage("in")(handler)
    assert f"test_app.py:{handler.__code__.co_firstlineno}: {handler.__name__}" in str(caught.value)


def test_processes_need_a_plain_function_at_the_top_of_its_module() -> None:
    app = rabbitry.App("wrong")

    def inner(value: str) -> None: ...

    with pytest.raises(rabbitry.AppError, match="top of its module"):
        app.stage("in", processes=True)(inner)
    with pytest.raises(rabbitry.AppError, match="is for `def`"):
        app.stage("in", processes=True)(none_at_all)


def test_invalid_stages_and_keys_are_refused() -> None:
    app = rabbitry.App("wrong")
    with pytest.raises(rabbitry.AppError, match="no stages to run"):
        app.worker()

    async def one(value: str) -> str:
        return value

    async def two(value: str) -> None: ...

    app.stage("in", queue="q", then="out")(one)
    with pytest.raises(rabbitry.AppError, match=r"queue 'q' is already that of .*one"):
        app.stage("in", queue="q")(two)
    with pytest.raises(rabbitry.AppError, match="stage 'one' is there already"):
        app.stage("in", name="one")(two)
    with pytest.raises(rabbitry.AppError, match=r"one: then='out' leads nowhere"):
        app.worker()
    app.output("out")
    app.validate()
    with pytest.raises(rabbitry.AppError, match="before"):
        app.output("out")
    with pytest.raises(rabbitry.UsageError, match="no stage 'three'"):
        app.worker(stages=["three"])
    with pytest.raises(rabbitry.UsageError, match=r"stages='one': must be a list of names, such as \['one'\]"):
        app.worker(stages="one")
    with pytest.raises(rabbitry.UsageError, match="concurrency=0: must be a positive whole number"):
        app.worker(concurrency=0)


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "amq.x"}, {"name": "x" * 201}, {"name": "x", "exchange": ""},
     {"name": 5}, {"name": "x", "plain": 1}, {"name": "x", "cancellable": "no"}, {"name": "x", "auto_delete": "x"},
     {"name": "x", "store": 5}, {"name": "x", "exchange_type": "headers"},
     {"name": "x", "queue_type": "quorum", "plain": True}],
)  # fmt: skip
def test_invalid_apps_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(rabbitry.AppError):
        rabbitry.App(**options)


def test_a_decorator_without_its_arguments_is_named() -> None:
    app = rabbitry.App("bare")

    def handle(text: str) -> None: ...

    for decorator, text in (
        (app.stage, "stage(KEY)"),
        (app.every, 'every("5m")'),
        (app.cron, 'cron("0 6 * * *")'),
        (partial(app.join, of="x"), "join(KEY, of=…)"),
    ):
        with pytest.raises(rabbitry.AppError, match=re.escape(f"app 'bare': write @app.{text} above 'handle'")):
            decorator(handle)  # type: ignore[arg-type] # as a user may write it
