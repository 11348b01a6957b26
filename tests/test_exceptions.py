"""The tree of errors: its shape, one class for each reply code, and what each error carries."""

import ast
import importlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Final

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

_ELSEWHERE: Final = {
    "rabbitry.amqp.driver.HeartbeatMissed": "asyncio passes it on as a socket's error; the client wraps it",
    "rabbitry.flow.worker._executors.invoker._Abandoned": "must pass any `except Exception` of a dependency",
    "rabbitry.runtime.interrupt.Interrupted": "ends a command at a signal, so no `except Exception` may catch it",
}
"""Exceptions that are no RabbitryError, and why: none is for users to catch."""
_BASE: Final = {"RabbitryError", "UsageError", "Undecodable"}
_PROTOCOL: Final = {"ProtocolViolation", "Closed", "ConnectionClosed", "ChannelClosed"}
_CLIENT: Final = {
    "AlreadySettled", "ConnectFailed", "ConsumerCancelled", "DeliveryTimeout", "DeliveryTimeoutCancelled",
    "DeliveryTimeoutClosed", "LoginRefused", "PublishError", "PublishRefused", "PublishReturned", "PublishTimeout",
    "RequestTimeout", "UsedAfterFork", "VirtualHostRefused",
}  # fmt: skip
_CLASSES = [value for value in vars(exceptions).values() if inspect.isclass(value) and issubclass(value, Exception)]


@pytest.mark.parametrize("cls", _CLASSES)
def test_every_error_is_a_rabbitry_error_with_a_docstring(cls: type[Exception]) -> None:
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


def test_the_other_errors_carry_their_fields() -> None:
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


def _classes() -> dict[str, list[str]]:
    """Return each class of the source by its full name, with the full names of its bases."""
    found: dict[str, list[str]] = {}
    source = Path(exceptions.__file__).parent
    for path in source.rglob("*.py"):
        module = ".".join(path.relative_to(source.parent).with_suffix("").parts).removesuffix(".__init__")
        nodes = list(ast.walk(ast.parse(path.read_text())))
        known = {node.name: f"{module}.{node.name}" for node in nodes if isinstance(node, ast.ClassDef)}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                known |= {alias.asname or alias.name: prefix + alias.name for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                # `Base[T]` is `Base`; the first word of `module.Base` is what the module imported.
                words = [ast.unparse(base).partition("[")[0].partition(".") for base in node.bases]
                found[f"{module}.{node.name}"] = [f"{known.get(word, word)}{dot}{rest}" for word, dot, rest in words]
    return found


def _is_foreign_error(name: str) -> bool:
    """Return whether a class of the standard library or another package is an exception."""
    module, _, attribute = f"builtins.{name}".rpartition(".") if "." not in name else name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute, None)
    return inspect.isclass(value) and issubclass(value, BaseException)


def _roots(name: str, classes: dict[str, list[str]]) -> set[str]:
    """Return what a class is in the end derived from: RabbitryError, and classes of others."""
    if name not in classes or name == "rabbitry.exceptions.RabbitryError":
        return {name}
    return {root for base in classes[name] for root in _roots(base, classes)}


def test_every_error_of_every_package_is_a_rabbitry_error() -> None:
    classes = _classes()
    base = "rabbitry.exceptions.RabbitryError"
    roots = {name: _roots(name, classes) for name in classes if name != base}
    foreign = {root for each in roots.values() for root in each if root != base and _is_foreign_error(root)}
    errors = {name for name, each in roots.items() if each & (foreign | {base})}
    assert len(errors) > 60, "the walk finds the classes"
    assert {name for name in errors if base not in roots[name]} == set(_ELSEWHERE)


def test_the_module_of_errors_has_those_of_the_base_the_protocol_and_the_client_alone() -> None:
    of_a_code = {cls.__name__ for cls in [*CONNECTION_ERRORS.values(), *CHANNEL_ERRORS.values()]}
    assert {cls.__name__ for cls in _CLASSES} - of_a_code == _BASE | _PROTOCOL | _CLIENT


def test_the_module_of_errors_lists_where_the_others_are() -> None:
    owners = re.findall(r"`(rabbitry\.[\w.]+)`", exceptions.__doc__ or "")
    assert {"rabbitry.broker", "rabbitry.flow.exceptions", "rabbitry.apps.exceptions"} <= set(owners)
    for owner in owners:
        values = vars(importlib.import_module(owner)).values()
        assert [value for value in values if inspect.isclass(value) and issubclass(value, RabbitryError)]
