"""Limits of time of the commands, as long as a busy machine may need; a test of such a limit keeps them short."""

import os
from typing import Final

from rabbitry.apps.crawl.asking import Asking
from rabbitry.apps.grading import asking as grading
from rabbitry.apps.monitor import client
from rabbitry.cli import doctor
from rabbitry.cli import worker as command
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker import _engine, _worker
from rabbitry.runtime import service
from rabbitry.runtime.children import Child

IMPATIENT: Final = {"TESTS_IMPATIENT": "1"}
"""The environment of a command that waits no longer than the real one does, for a broker that never answers."""
_LONG: Final = 30.0


def be_patient() -> None:
    """Make all limits long in this process, unless its environment has IMPATIENT."""
    if IMPATIENT.items() <= os.environ.items():
        return
    for module, names in (
        (_worker, ("_SETTLING", "_CANCELLING")),
        (_engine, ("_CLOSE_PATIENCE",)),
        (dead_letters, ("_DONE_WAITING",)),
        (command, ("GRACE",)),
        (service, ("HURRY",)),
        (doctor, ("_PAGE_WITHIN", "_PROBE_WITHIN")),
        (grading, ("ANSWER_WITHIN",)),
        (client, ("DRAIN_SECONDS",)),
    ):
        for name in names:
            assert hasattr(module, name)
            setattr(module, name, _LONG)
    Child.end.__defaults__ = (_LONG,)  # how long `rabbitry up` waits for a child that it has told to end
    for function, name in ((service.run_service, "deadline"), (Asking.__init__, "patience")):
        defaults = function.__kwdefaults__
        assert defaults is not None
        assert name in defaults
        defaults[name] = 2 * _LONG
