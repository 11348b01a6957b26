"""The tree of errors: its shape, one class for each reply code, and what each error carries."""

import ast
import builtins
import inspect
import pickle
import re
from pathlib import Path

import pytest

from rabbitry import exceptions
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.exceptions import (
    CHANNEL_ERRORS,
    CONNECTION_ERRORS,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ConnectionForced,
    ConsumerCancelled,
    NotFound,
    ProtocolViolation,
    PublishReturned,
    PublishTimeout,
    RabbitryError,
    RequestTimeout,
    channel_closed,
    connection_closed,
)
from rabbitry.flow.exceptions import Reject, Retry

_ELSEWHERE = {"driver.HeartbeatMissed", "interrupt.Interrupted"}
"""A socket's error, as asyncio passes it on, and what ends a command: neither is for users to catch."""
_CLASSES = [value for value in vars(exceptions).values() if inspect.isclass(value) and issubclass(value, Exception)]


@pytest.mark.parametrize("cls", _CLASSES)
def test_every_error_is_a_rabbitry_error_that_says_what_it_means(cls: type[Exception]) -> None:
    assert issubclass(cls, RabbitryError)
    assert cls.__doc__


def test_the_drawing_shows_every_class_but_those_of_a_reply_code() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", exceptions.__doc__ or "")) | {"RabbitryError"}
    of_a_code = {cls.__name__ for cls in [*CONNECTION_ERRORS.values(), *CHANNEL_ERRORS.values()]}
    assert drawn == {cls.__name__ for cls in _CLASSES} - of_a_code


@pytest.mark.parametrize(("code", "cls"), [*CONNECTION_ERRORS.items(), *CHANNEL_ERRORS.items()])
def test_every_code_is_one_of_amqp_and_its_class_names_it(code: int, cls: type[Closed]) -> None:
    assert code in set(Reply)
    assert (cls.__doc__ or "").startswith(f"{code}: ")


def test_a_code_has_one_class() -> None:
    with pytest.raises(TypeError, match="404 has two classes"):
        exceptions._register(CHANNEL_ERRORS, 404)(ChannelClosed)
    assert CHANNEL_ERRORS[404] is NotFound


def test_a_close_becomes_the_class_of_its_code() -> None:
    error = channel_closed(404, "NOT_FOUND - no queue 'q'", 50, 10)
    assert type(error) is NotFound
    assert (error.reply_code, error.class_id, error.method_id) == (404, 50, 10)
    assert str(error) == "channel closed: 404 NOT_FOUND - no queue 'q'"
    assert type(connection_closed(320, "CONNECTION_FORCED", 0, 0)) is ConnectionForced
    assert type(connection_closed(599, "?", 0, 0)) is ConnectionClosed
    assert type(channel_closed(599, "?", 0, 0)) is ChannelClosed


def test_a_connection_that_was_lost_has_no_code() -> None:
    error = ConnectionClosed(0, "the connection was lost")
    assert (error.reply_code, str(error)) == (0, "the connection was lost")


def test_a_fresh_error_has_the_same_cause() -> None:
    error = channel_closed(406, "PRECONDITION_FAILED", 60, 80)
    error.__cause__ = OSError("below")
    other = error.fresh()
    assert other is not error
    assert type(other) is type(error)
    assert other.__cause__ is error.__cause__
    assert str(other) == str(error)


def test_what_the_others_carry() -> None:
    violation = ProtocolViolation(505, "UNEXPECTED_FRAME", 60, 40)
    assert (violation.reply_code, violation.class_id, violation.method_id) == (505, 60, 40)
    assert str(violation) == "505 UNEXPECTED_FRAME"
    returned = PublishReturned(312, "NO_ROUTE", "e", "k")
    assert (returned.reply_code, returned.exchange, returned.routing_key) == (312, "e", "k")
    assert "'k'" in str(returned)
    cancelled = ConsumerCancelled("tag", "q")
    assert (cancelled.consumer_tag, cancelled.queue) == ("tag", "q")
    assert issubclass(RequestTimeout, TimeoutError)
    assert issubclass(PublishTimeout, TimeoutError)


@pytest.mark.parametrize(
    "error",
    [
        NotFound(404, "NOT_FOUND", 50, 10),
        ConnectionClosed(0, "lost"),
        ProtocolViolation(505, "UNEXPECTED_FRAME", 60, 40),
        PublishReturned(312, "NO_ROUTE", "e", "k"),
        ConsumerCancelled("tag", "q"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass_between_processes(error: RabbitryError) -> None:
    other = pickle.loads(pickle.dumps(error))  # noqa: S301 # our own bytes
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


@pytest.mark.parametrize("cls", [Reject, Retry])
@pytest.mark.parametrize("wrong", [30, 1.5, True, None])
def test_a_delay_or_a_flag_in_the_place_of_the_text_is_a_type_error(cls: type[Exception], wrong: object) -> None:
    with pytest.raises(TypeError, match="positional argument is a text"):
        cls(wrong)


def _bases(node: ast.ClassDef) -> set[str]:
    return {base.id if isinstance(base, ast.Name) else ast.unparse(base).rpartition(".")[2] for base in node.bases}


def test_every_error_of_every_package_has_the_same_base() -> None:
    builtin = {
        name for name, value in vars(builtins).items() if inspect.isclass(value) and issubclass(value, BaseException)
    }
    source = Path(exceptions.__file__).parent
    classes = {
        f"{path.stem}.{node.name}": _bases(node)
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    strangers = {name for name, bases in classes.items() if bases & builtin and not bases - builtin}
    assert strangers - {"exceptions.RabbitryError"} == _ELSEWHERE
