"""Counting pages and CPU in a crawler's process."""

import json
import time
from typing import Final

_WARM: Final = 0.1
"""The share of the pages fetched before the measurement starts: importing and connecting do not count."""


class Count:
    """Counts pages, and prints their cost when there are enough.

    Prints one line of JSON: pages, seconds, and CPU seconds (user and system) of this process.
    """

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._pages = 0
        self._began = (0, 0.0, 0.0)

    def page(self) -> bool:
        """Count a page. Return whether there are enough."""
        self._pages += 1
        if self._pages == int(self._wanted * _WARM):
            self._began = (self._pages, time.perf_counter(), time.process_time())
        if self._pages == self._wanted:
            pages, seconds, cpu = self._began
            print(
                json.dumps(
                    {
                        "pages": self._pages - pages,
                        "seconds": time.perf_counter() - seconds,
                        "cpu": time.process_time() - cpu,
                    }
                ),
                flush=True,
            )
        return self._pages >= self._wanted
