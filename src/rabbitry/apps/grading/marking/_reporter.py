"""Runs pytest on one file in a sandbox and reports to the program outside.

A separate script that imports nothing of Rabbitry: `reporter.py TEST_FILE KEY_FD REPORT_FD`. Each line of the report
is numbered, so that none counts twice, and signed with the key. The key is read before any code of the submission
runs, and is not in a variable that the submission could read by accident.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import sys
from collections.abc import Callable

_HEAD, _TAIL = 400, 600  # characters kept of a longer name or reason
_SURROGATE = re.compile("[\ud800-\udfff]")  # not valid in JSON or UTF-8


def main() -> None:
    """Report the start, each test found, the outcome of each, and the end."""
    test_file, key_fd, report_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open(key_fd, "rb") as reader:
        send = _sender(reader.read(), report_fd)
    os.set_inheritable(report_fd, False)
    sys.argv[1:] = []
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
