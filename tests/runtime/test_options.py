"""The options that commands share."""

from enum import StrEnum
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rabbitry.runtime.options import as_arguments, same_arguments


class _Colour(StrEnum):
    RED = "red"


_app = typer.Typer()


@_app.command()
def _command(
    context: typer.Context,
    words: list[str],
    name: Annotated[list[str] | None, typer.Option("--name", "-n")] = None,
    count: Annotated[int, typer.Option(envvar="TEST_COUNT")] = 1,
    colour: Annotated[_Colour | None, typer.Option()] = None,
    loud: Annotated[bool, typer.Option("--loud/--quiet")] = False,
    secret: str = "",
) -> None:
    print(same_arguments(context, without=("secret",)))


@pytest.mark.parametrize(
    ("given", "again"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "-n", "x", "--name=y z"], ["a", "--name", "x", "--name", "y z"]),
        (["--count", "3", "a", "--colour", "red"], ["a", "--count", "3", "--colour", "red"]),
        (["a", "--loud"], ["a", "--loud"]),
        (["a", "--quiet"], ["a", "--quiet"]),
        (["a", "--secret", "hush"], ["a"]),
    ],
)
def test_the_same_arguments_are_those_of_the_command_line(given: list[str], again: list[str]) -> None:
    done = CliRunner().invoke(_app, given, env={"TEST_COUNT": "7"})
    assert (done.exit_code, done.output) == (0, f"{again}\n")


def test_options_become_arguments() -> None:
    given = as_arguments(
        plain=True, strict=False, data=None, exchange_type=_Colour.RED, queue="", port=0, key=["a b", "-c"], none=[]
    )
    assert given == ("--plain", "--exchange-type", "red", "--queue", "", "--port", "0", "--key", "a b", "--key", "-c")
