"""A machine of its own for a page: a network namespace, a home folder, and the files that the page shows."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.docs.blocks import ROOT, Block
from tests.support import commands
from tests.support.launcher import launch

# Commands that end by themselves, though they begin as a service does.
_ENDING = ("rabbitry broker check", "rabbitry broker repair")
# Commands that run until they are told to stop, by how they begin, and what they print when they are up ("": anything).
_SERVICES = {
    "make up": "http://127.0.0.1:8003/",
    "rabbitry up": "http://127.0.0.1:8003/",
    "rabbitry broker": "rabbitry broker ready",
    "rabbitry web": "http://",
    "rabbitry monitor publish": "",
    "rabbitry monitor stats": "",
    "rabbitry worker": "",
    "celery -A": "",
    "dramatiq ": "",
    "rabbitry workqueue consume": "",
    "rabbitry grading run": "",
    "rabbitry grading demonstrator": "",
    "rabbitry grading assistant": "",
    "rabbitry grading coordinator": "",
    "rabbitry grading results --follow": "",
    "rabbitry crawl run": "",
    "rabbitry crawl crawler": "",
    "rabbitry crawl processor": "",
    "rabbitry crawl keeper": "",
    "rabbitry queues --watch": "",
    "python -m http.server": "Serving HTTP",
    "uvicorn": "running on",
}
# The examples' hosts, and the machine's own name, as /etc/hosts has them.
_HOSTS = "127.0.0.1 localhost\n192.0.2.7 rabbit.example broker.example\n"
# Without the plugins of this project's own environment: Hypothesis alone takes 0.6 s of CPU to import.
_PYTEST = "python -m pytest -q -p no:cacheprovider -p no:asyncio -p no:hypothesispytest"
_PRELUDE = Path(__file__).parent / "prelude.sh"
_COMMAND = Path(__file__).parent / "command.py"


def why_missing() -> str | None:
    """Return which program a machine needs and this one has not; None when all are there."""
    missing = [name for name in ("ip", "ss") if not shutil.which(name)]
    return f"missing: {', '.join(missing)} (as root: scripts/system-deps)" if missing else None


def run_page(blocks: Sequence[Block], folder: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Write the page's files to a folder, run the page's blocks there, and return the result.

    Args:
        blocks: The blocks of the page, those that are files included.
        folder: Where the blocks run.
        before: Commands for what the page takes for granted, such as a broker. They run before the first block, and
            again before each block that is repeated.
    """
    for block in blocks:
        if block.name:
            (folder / block.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.name).write_text(block.text)
    home, logs, programs = (folder.parent / f"{folder.name}-{what}" for what in ("home", "logs", "bin"))
    for made in (home, logs, programs):
        made.mkdir()
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    # The path of a socket has 107 characters at most, and pytest's folders are longer.
    with tempfile.TemporaryDirectory(prefix="rabbitry-docs-") as short:
        launcher = f"{short}/launcher"
        _write_programs(programs, launcher)
        (logs.parent / "hosts").write_text(_HOSTS)
        script = "\n".join([f". {_PRELUDE}", f"mount --bind {logs.parent}/hosts /etc/hosts", *_script(blocks, before)])
        return _run(launcher, script, folder, _environment(home, logs, programs))


def _run(launcher: str, script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile("w+") as output:
        process = launch(
            [launcher, script], environment, output.fileno(), output.fileno(), cwd=folder,
            module="tests.docs.namespaces",
        )  # fmt: skip
        try:
            code = process.wait(560)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return subprocess.CompletedProcess(script, code, output.read())


def _write_programs(programs: Path, launcher: str) -> None:
    """Write what the page's commands mean by `make`, `python` and `rabbitry`.

    `make` runs in the checkout. `rabbitry`, pytest and programs of the page are forked, for a tenth to a half of the
    CPU. With PYTHONPATH they are started anew, as `.venv/bin/rabbitry` is, because they import modules of the page.
    """
    python = Path(sys.executable)
    for name, body in {
        "make": f'exec {shutil.which("make")} --directory {ROOT} "$@"',
        "python": f'case "${{PYTHONPATH:-}}$*" in "-m pytest "*)\n'
        f'    shift 2; exec {python} -IS {_COMMAND} {launcher} pytest "$@" ;;\n'
        f'esac\ncase "${{PYTHONPATH:-}}$1" in */* | -*) ;; *.py)\n'
        f'    module=${{1%.py}}; shift; exec {python} -IS {_COMMAND} {launcher} "$module" "$@" ;;\n'
        f'esac\nexec {python} "$@"',
        "rabbitry": f'[ -z "${{PYTHONPATH:-}}" ] || exec {python.parent}/rabbitry "$@"\n'
        f'exec {python} -IS {_COMMAND} {launcher} rabbitry "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)


def _environment(home: Path, logs: Path, programs: Path) -> Mapping[str, str]:
    kept = {
        key: value
        for key, value in commands.environment().items()
        if not key.startswith(("XDG_", "MAKE", "MFLAGS", "ARGS", "PYTHONPATH"))
    }
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"HOME": str(home), "LOGS": str(logs), "PATH": path}


def _script(blocks: Sequence[Block], before: Sequence[str]) -> list[str]:
    """Return the lines of the page's script: groups of commands, each in a subshell that ends its services."""
    groups: list[list[str]] = [[]]
    for block in blocks:
        match block.language, block.how:
            case "python", _ if "/" not in block.name:  # the others are modules of a package
                _append_program(groups[-1], block.name)
            case "sh", "alternatives":
                groups += [[_line(command)] for command in block.commands]
                groups.append([])
            case "sh", how:
                if how == "anew":
                    groups.append([])
                groups[-1] += [_line(command) for command in block.commands]
    opening = [_line(command) for command in before]
    return ["\n".join(["(", *opening, *group, "finish", ") || exit 1"]) for group in groups if group]


def _append_program(group: list[str], name: str) -> None:
    """Append a program to a group; tests that follow one another share a pytest, which takes seconds to start."""
    if not name.startswith("test_"):
        group.append(f"run {shlex.quote(f'python {name}')}")
    elif group and group[-1].startswith(f"run '{_PYTEST}"):
        group[-1] = f"{group[-1][:-1]} {name}'"
    else:
        group.append(f"run '{_PYTEST} {name}'")


def _line(command: str) -> str:
    said = command.removeprefix(".venv/bin/")
    while (word := said.partition(" "))[0].partition("=")[0].isupper():  # what is put into its environment
        said = word[2]
    for service, printed in _SERVICES.items():
        if said.startswith(service) and not said.startswith(_ENDING):
            return f"start {shlex.quote(command)} {shlex.quote(printed)}"
    return f"run {shlex.quote(command)}"
