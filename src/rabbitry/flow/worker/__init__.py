"""Workers: they take the messages of an app's stages, run the handlers, and settle.

`Worker` is public, with what it tells of: `Work` is what one call of a handler got, `Result` what it led to.
"""

from __future__ import annotations

from rabbitry.flow.worker._job import Result, Work
from rabbitry.flow.worker._worker import Worker

__all__ = ["Result", "Work", "Worker"]
