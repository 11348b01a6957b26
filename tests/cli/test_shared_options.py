"""Options that several commands have: each means the same everywhere, and is made in one place."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.core import TyperGroup
from typer.main import get_command

import rabbitry
from rabbitry.apps.installed import installed
from rabbitry.cli._root import COMMANDS, root

_OF_A_COMMAND: Final = {
    "--broker", "--concurrency", "--data", "--database", "--files", "--host", "--limit", "--management-port",
    "--module", "--password-file", "--person", "--port", "--processes", "--queue", "--reason", "--remark", "--role",
    "--stage", "--student", "--vhost", "--watch", "--web-port", "-k",
}  # fmt: skip
"""Options that mean something else, or more, to one of the commands that have them."""


def _options(command: Any) -> Iterator[Any]:
    yield from (parameter for parameter in command.params if parameter.param_type_name == "option")
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            yield from _options(inner)


def test_an_option_of_several_commands_means_the_same_to_each() -> None:
    commands = get_command(root)
    assert isinstance(commands, TyperGroup)
    texts: defaultdict[str, set[str]] = defaultdict(set)
    own = {name for name, source in installed().sources.items() if source.startswith("rabbitry ")}
    for name in {*COMMANDS} | own:
        for option in _options(commands.get_command(None, name)):  # type: ignore[arg-type] # it needs no context
            for spelling in option.opts:
                texts[spelling].add(option.help or "")
    assert {"--broker", "--json", "--log-level", "--database", "--allow-private", "--exchange"} <= set(texts)
    assert {spelling for spelling, found in texts.items() if len(found) > 1} == _OF_A_COMMAND


def test_no_option_is_defined_twice() -> None:
    """Two with one text are one option, which lies in `runtime/options.py` or with its app."""
    texts = Counter(
        ast.unparse(keyword.value)
        for path in Path(rabbitry.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "port_option")
        for keyword in node.keywords
        if keyword.arg == "help"
    )
    assert len(texts) > 60
    assert [text for text, times in texts.items() if times > 1] == []
