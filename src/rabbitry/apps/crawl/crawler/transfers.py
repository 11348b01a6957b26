"""libcurl's multi interface, driven by an asyncio event loop.

libcurl names the sockets to wait for and the time of its next call
(https://curl.se/libcurl/c/libcurl-multi.html, "multi_socket"); the loop calls it back. All transfers share the kept
connections.
"""

from __future__ import annotations

import asyncio
from typing import Final

import pycurl

IDLE_SECONDS: Final = 60
"""Seconds that an idle connection is kept."""


class Transfers:
    """Concurrent requests, each with its own curl handle. Bound to the event loop that created it.

    connections: the most connections kept, in use or not.
    """

    def __init__(self, connections: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._running: dict[pycurl.Curl, asyncio.Future[None]] = {}
        self._reading: set[int] = set()
        self._writing: set[int] = set()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    async def perform(self, curl: pycurl.Curl) -> None:
        """Run a transfer to its end. Cancelling ends it and its connection.

        Raises:
            pycurl.error: It failed; the arguments are libcurl's number (CURLE_…) and text.
            Exception: The error passed to `fail`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._running[curl] = future
        self._multi.add_handle(curl)
        try:
            await future
        finally:
            # A transfer that has ended was removed already.
            if self._running.pop(curl, None) is not None:
                self._multi.remove_handle(curl)

    def resume(self, curl: pycurl.Curl) -> None:
        """Resume a transfer that one of its callbacks paused; no effect if it has ended."""
        if curl in self._running:
            curl.pause(pycurl.PAUSE_CONT)

    def fail(self, curl: pycurl.Curl, error: Exception) -> None:
        """End a transfer and its connection: `perform` raises the error. No effect if it has ended."""
        self._end(curl, error)

    def close(self) -> None:
        """Close all connections. No transfer may be running."""
        self._multi.close()
        self._set_timer(-1)
        for number in self._reading | self._writing:
            self._watch(pycurl.POLL_REMOVE, number, self._multi, None)

    def _watch(self, what: int, number: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Watch a socket for libcurl (CURLMOPT_SOCKETFUNCTION)."""
        loop = self._loop
        is_read = what in (pycurl.POLL_IN, pycurl.POLL_INOUT)
        is_written = what in (pycurl.POLL_OUT, pycurl.POLL_INOUT)
        if is_read and number not in self._reading:
            loop.add_reader(number, self._act, number, pycurl.CSELECT_IN)
            self._reading.add(number)
        elif not is_read and number in self._reading:
            loop.remove_reader(number)
            self._reading.discard(number)
        if is_written and number not in self._writing:
            loop.add_writer(number, self._act, number, pycurl.CSELECT_OUT)
            self._writing.add(number)
        elif not is_written and number in self._writing:
            loop.remove_writer(number)
            self._writing.discard(number)

    def _set_timer(self, milliseconds: int) -> None:
        """Schedule or cancel libcurl's next call (CURLMOPT_TIMERFUNCTION)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if milliseconds == 0:
            self._timer = self._loop.call_soon(self._on_timer)
        elif milliseconds > 0:
            self._timer = self._loop.call_later(milliseconds / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, number: int, event: int) -> None:
        _, running = self._multi.socket_action(number, event)
        left = running != len(self._running)  # equal if none has ended
        while left:
            left, done, failed = self._multi.info_read()
            for curl in done:
                self._end(curl, None)
            for curl, code, text in failed:
                self._end(curl, pycurl.error(code, text))

    def _end(self, curl: pycurl.Curl, error: Exception | None) -> None:
        future = self._running.pop(curl, None)
        if future is None:
            return
        self._multi.remove_handle(curl)
        if future.done():
            return  # cancelled in this turn of the loop
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
