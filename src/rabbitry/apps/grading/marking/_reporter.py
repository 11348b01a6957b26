"""Runs the tests of a part in a sandbox and reports to the program outside.

A separate script that imports nothing of Rabbitry. `reporter.py pytest TEST_FILE KEY_FD REPORT_FD` runs pytest on one
file; `reporter.py notebook CHECKS_FILE NOTEBOOK KEY_FD REPORT_FD` runs the cells of a notebook and then those of a file
of checks, in the same kernel, which is a process of its own.

Each line of the report is numbered, so that none counts twice, and signed with the key. The key is read before any code
of the submission runs, and is not in a variable that the submission could read by accident.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

_MOST_CELLS = 1_000  # of a notebook's code
_MOST_ERRORS = 20  # of a notebook's cells that are shown
_HEAD, _TAIL = 400, 600  # characters kept of a longer name or reason
_SURROGATE = re.compile("[\ud800-\udfff]")  # not valid in JSON or UTF-8


def main() -> None:
    """Report the start, each test found, the outcome of each, and the end."""
    kind, *files, key_fd, report_fd = sys.argv[1:]
    with open(int(key_fd), "rb") as reader:
        send = _sender(reader.read(), int(report_fd))
    os.set_inheritable(int(report_fd), False)
    sys.argv[1:] = []
    if kind == "pytest":
        _run_pytest(files[0], send)
    else:
        _run_notebook(files[0], files[1], send)


def _run_pytest(test_file: str, send: Callable[..., None]) -> None:
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plug-ins of other programs in this Python's folder
    import pytest

    class Reporter:
        def __init__(self) -> None:
            self._tests: dict[str, str] = {}
            self._why = ""
            self._passed = False

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                send(event="broken", why=str(report.longrepr))

        def pytest_internalerror(self, excrepr: object) -> None:
            send(event="broken", why=str(excrepr))

        def pytest_collection_finish(self, session: pytest.Session) -> None:
            for number, item in enumerate(session.items):
                # Names may become equal when they are cut.
                self._tests[item.nodeid] = f"{number} {item.name}"
                send(event="found", test=self._tests[item.nodeid])

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "setup":
                self._passed, self._why = True, ""
            # The outcome of a skipped test, or of one expected to fail, says nothing about the submission.
            if not report.passed or hasattr(report, "wasxfail"):
                self._passed = False
                self._why = self._why or _reason(report)
            if report.when == "teardown":
                send(event="done", test=self._tests.get(report.nodeid, ""), passed=self._passed, why=self._why)

    send(event="began")
    # Last, so that what the tests import of Python or of an installed package never comes from the submission: they
    # may compare its answers with those of statistics.mean.
    sys.path.append(os.getcwd())
    options = ["-q", "--tb=short", "--import-mode=importlib", "-p", "no:cacheprovider"]
    # No configuration file of the submission is read.
    options += ["--noconftest", "-c", os.devnull, "--rootdir", os.path.dirname(test_file)]
    pytest.main([*options, test_file], plugins=[Reporter()])
    send(event="ended")


def _run_notebook(checks_file: str, notebook: str, send: Callable[..., None]) -> None:
    # Read before any code of the submission runs.
    with open(checks_file, encoding="utf-8") as file:
        setup, checks = checks_in(file.read())
    client, replies = _client()
    send(event="began")
    names = [f"{number} {title}" for number, (title, _) in enumerate(checks)]
    for name in names:
        send(event="found", test=name)
    cells = _code_of(notebook)
    if isinstance(cells, str):
        send(event="broken", why=cells)
        send(event="ended")
        return
    client.create_kernel_manager()
    client.km.transport = "ipc"  # in the weak sandbox, others may reach a port
    client.start_new_kernel()
    client.start_new_kernel_client()

    def run(source: str, place: str) -> str | None:
        """Return why a cell failed; None if it did not."""
        import nbformat

        if not source.strip():
            return None
        replies.clear()
        try:
            client.execute_cell(nbformat.v4.new_code_cell(source), 0, store_history=False)
        except Exception as error:  # noqa: BLE001 - the kernel died, or answered what is no answer
            code = client.km.provisioner.process.poll()
            why = "used more CPU time than the part allows" if code == -signal.SIGXCPU else type(error).__name__
            print(f"{place}: the kernel ended: {why}", file=sys.stderr, flush=True)
            _end(client, 1)
        reply = replies[0] if replies else {}
        if _asks_to_end(reply):
            # The kernel may take some further cells before it ends; how many depends on how busy the machine is.
            print(f"{place}: it ends the kernel", file=sys.stderr, flush=True)
            _end(client, 1)
        if reply.get("status") == "ok":
            return None
        return _sendable(f"{reply.get('ename', 'stopped')}: {reply.get('evalue', '')}")

    shown = 0
    for number, source in enumerate(cells, 1):
        why = run(source, f"code cell {number}")
        if why is not None and shown < _MOST_ERRORS:
            shown += 1
            print(f"code cell {number}: {why.splitlines()[0]}", flush=True)
    why = run(setup, "before the checks")
    if why is not None:
        send(event="broken", why=f"the code before the checks failed: {why}")
    for name, (_, source) in zip(names, checks, strict=True):
        why = run(source, name.partition(" ")[2])
        send(event="done", test=name, passed=why is None, why=why or "")
    send(event="ended")
    sys.stdout.flush()
    _end(client, 0)


def _asks_to_end(reply: dict[str, Any]) -> bool:
    """Return whether an answer says that the cell ends the kernel. Code in the kernel may have written the answer."""
    payload = reply.get("payload")
    asked = payload if isinstance(payload, list) else []
    return any(isinstance(one, dict) and one.get("source") == "ask_exit" for one in asked)


def _end(client: Any, code: int) -> NoReturn:
    """End the kernel, which has a session of its own, so that the weak sandbox may not reach it, and this process."""
    client.km.provisioner.process.kill()
    os._exit(code)


def _client() -> tuple[Any, list[dict[str, Any]]]:
    """Return a client for a notebook's cells, and the list to which the answer to each cell is added.

    Outputs are dropped: what a cell shows earns no points, and would fill this process's memory.
    """
    folder = tempfile.mkdtemp()
    # -I: modules of the submission can't replace those of the kernel before it has started.
    python = [sys.executable, "-I", "-B", "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
    spec = {
        "argv": [*python, "-f", "{connection_file}", "--HistoryManager.enabled=False", "--log-level=ERROR"],
        "display_name": "Python",
        "language": "python",
    }
    os.makedirs(f"{folder}/kernels/submission")
    with open(f"{folder}/kernels/submission/kernel.json", "w", encoding="utf-8") as file:
        json.dump(spec, file)
    names = ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    os.environ.update(dict.fromkeys(names, folder), JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    import nbclient
    import nbformat

    replies: list[dict[str, Any]] = []
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")]),
        kernel_name="submission",
        timeout=None,  # the part's limits hold
        startup_timeout=3600,
        allow_errors=True,
        on_cell_executed=lambda cell, cell_index, execute_reply: replies.append(execute_reply["content"]),
        resources={"metadata": {"path": os.getcwd()}},
    )
    client.output = lambda *_: None
    return client, replies


def checks_in(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the code before the first cell of a file of checks, and the title and the code of each cell."""
    setup, *parts = re.split(r"^# %%(.*)$", text, flags=re.MULTILINE)
    found = zip(parts[::2], parts[1::2], strict=True)
    cells = [(title.strip(), source) for title, source in found if not title.strip().startswith("[markdown]")]
    return setup, [(title or f"check {number}", source) for number, (title, source) in enumerate(cells, 1)]


def _code_of(notebook: str) -> list[str] | str:
    """Return the sources of a notebook's code cells, or why it is no notebook to run."""
    try:
        with open(notebook, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return f"there is no file {notebook!r}"
    except (ValueError, RecursionError) as error:
        return f"{notebook!r} is not JSON: {error}"
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list):
        return f"{notebook!r} is not a notebook of format 4: it has no list of cells"
    metadata = found.get("metadata")
    info = metadata.get("language_info") if isinstance(metadata, dict) else None
    language = info.get("name", "python") if isinstance(info, dict) else "python"
    if language != "python":
        return f"the language of {notebook!r} is {str(language)[:40]!r}, and only Python is run"
    code = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    if len(code) > _MOST_CELLS:
        return f"{notebook!r} has {len(code)} cells of code, and at most {_MOST_CELLS} are run"
    sources = []
    for cell in code:
        source = cell.get("source", "")
        lines = source if isinstance(source, list) else [source]
        sources.append("".join(line for line in lines if isinstance(line, str)))
    return sources


def _sender(key: bytes, fd: int) -> Callable[..., None]:
    number = 0

    def send(**event: object) -> None:
        nonlocal number
        for name, value in event.items():
            if isinstance(value, str):
                event[name] = _sendable(value)
        number += 1
        line = json.dumps({"number": number, **event}, ensure_ascii=False).encode()
        os.write(fd, hmac.new(key, line, hashlib.sha256).hexdigest().encode() + b" " + line + b"\n")

    return send


def _sendable(text: str) -> str:
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} … {text[-_TAIL:]}"
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _reason(report: object) -> str:
    crash = getattr(getattr(report, "longrepr", None), "reprcrash", None)
    if crash is not None:
        return str(crash.message)
    return "skipped" if getattr(report, "skipped", False) else str(getattr(report, "longrepr", ""))


if __name__ == "__main__":
    main()
