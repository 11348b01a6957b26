"""Replaying the client's part of a recorded conversation to a broker, and keeping its answers."""

import socket
import struct
import threading
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.data import Captured

_WITHIN = 60.0
_OPEN = (10, 40)


@dataclass(frozen=True)
class Frame:
    """A frame: its kind (1 method, 2 header, 3 body), channel and payload."""

    kind: int
    channel: int
    payload: bytes

    @property
    def method(self) -> tuple[int, int] | None:
        """Class and method id; None for other frames."""
        return struct.unpack_from(">HH", self.payload) if self.kind == 1 else None

    @property
    def octets(self) -> bytes:
        """The frame as it travels."""
        return struct.pack(">BHI", self.kind, self.channel, len(self.payload)) + self.payload + b"\xce"


def frames(data: bytes) -> list[Frame]:
    """Split a stream into its complete frames."""
    found = []
    while len(data) >= 7:
        kind, channel, size = struct.unpack_from(">BHI", data)
        if len(data) < size + 8:
            break
        found.append(Frame(kind, channel, data[7 : 7 + size]))
        data = data[size + 8 :]
    return found


def up_to(captured: Captured, method: tuple[int, int], *more: tuple[str, bytes]) -> Captured:
    """Cut a conversation after the turn in which the server sends a method; `more` turns follow."""
    for index, (side, part) in enumerate(captured.turns):
        if side == "server" and method in [frame.method for frame in frames(part)]:
            return replace(captured, turns=[*captured.turns[: index + 1], *more])
    raise AssertionError(f"{method} was not said")


class Replay:
    """A client that sends a recording, in a thread: each part after as many answers as the recorded client had.

    The virtual host is that of the URL. Leaving the block waits for the end of the conversation.
    """

    def __init__(self, url: str, captured: Captured, *, header: bytes | None = None) -> None:
        """header: another protocol header than the recorded one."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._socket = socket.create_connection((parts.hostname, parts.port), _WITHIN)
        self._vhost = unquote(parts.path.removeprefix("/")).encode() or b"/"
        self._captured = captured
        self._header = header or captured.client[:8]
        self._received = b""
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"replay of {captured.name}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()
        if self._failure is not None:
            raise self._failure

    @property
    def answers(self) -> list[Frame]:
        """The frames that the broker has sent so far."""
        with self._changed:
            return frames(self._received)

    def wait_for(self, method: tuple[int, int]) -> None:
        """Wait until the broker has sent a method."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._failure or method in [frame.method for frame in frames(self._received)], _WITHIN
            )
        assert there, f"no {method} in the answers to {self._captured.name}"

    def _run(self) -> None:
        try:
            self._say()
        except Exception as error:  # noqa: BLE001 - raised where the block is left
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _say(self) -> None:
        recorded = b""
        for side, part in self._captured.turns:
            if side == "server":
                recorded += part
                self._read(len(frames(recorded)))
            else:
                self._socket.sendall(self._header if part.startswith(b"AMQP") else self._own(part))

    def _own(self, part: bytes) -> bytes:
        """Return a part of the client's bytes with this broker's virtual host in place of the recorded one."""
        said = frames(part)
        assert b"".join(frame.octets for frame in said) == part, "the recorded client cut a frame"
        opening = b"\x00\x0a\x00\x28" + bytes((len(self._vhost),)) + self._vhost + b"\x00\x00"
        return b"".join((Frame(1, 0, opening) if frame.method == _OPEN else frame).octets for frame in said)

    def _read(self, number: int) -> None:
        """Read until the broker has sent so many frames."""
        while len(self.answers) < number:
            data = self._socket.recv(65536)
            if not data:
                raise AssertionError(f"the broker hung up on {self._captured.name} after {self.answers}")
            with self._changed:
                self._received += data
                self._changed.notify_all()
