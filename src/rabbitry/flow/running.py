"""The workers that run in this process: where an app publishes when it is given no URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client.default import current

if TYPE_CHECKING:
    from rabbitry.flow.app import App
    from rabbitry.flow.worker import Worker

workers: Final[list[Worker]] = []
"""Oldest first. A worker is in it from before its first handler begins until its last has ended."""


def worker_of(app: App) -> Worker | None:
    """Return the worker that `app` publishes through where it is given no URL; None where none runs here.

    Of several it is the newest, and in a handler the newest that is connected where the handler's worker is.
    """
    found = [worker for worker in reversed(workers) if worker.app is app]
    here = [worker for worker in found if worker.url == current.get()]
    return next(iter(here or found), None)
