"""Workers: they consume the messages of an app's stages, run the handlers, and settle the messages.

`Worker` is public, and so are `Work`, the input of one call of a handler, and `Result`, its outcome.
"""

from __future__ import annotations

from rabbitry.flow.worker._job import Result, Work
from rabbitry.flow.worker._worker import Worker

__all__ = ["Result", "Work", "Worker"]
