"""A broker that plays a recording: it sends each step when the client has sent as many frames as in the recording."""

import asyncio
import struct
from collections.abc import Iterable
from typing import Final

from tests.fuzz.mutations import frames

_STEP: Final = struct.Struct(">HI")
_PATIENCE: Final = 0.05
Step = tuple[int, bytes]
"""The number of frames that the client had sent, and the data that the broker sent then."""


def encode(said: Iterable[tuple[bool, bytes]]) -> bytes:
    """Encode a conversation, given as (whether the client sent it, data), as steps."""
    steps: list[Step] = []
    count = 0
    for by_client, part in said:
        if by_client:
            count += sum(1 for _ in frames(part))
        elif steps and steps[-1][0] == count:
            steps[-1] = (count, steps[-1][1] + part)
        else:
            steps.append((count, part))
    return b"".join(_STEP.pack(number, len(part)) + part for number, part in steps)


def decode(data: bytes) -> list[Step]:
    """Read the steps of a recording."""
    steps = []
    while data:
        number, size = _STEP.unpack_from(data)
        steps.append((number, data[6 : 6 + size]))
        data = data[6 + size :]
    return steps


class Replay:
    """Plays steps to one client, then closes: an async context manager with the `port` that it listens on."""

    def __init__(self, steps: list[Step], patience: float = _PATIENCE) -> None:
        """patience: seconds to wait for a client that behaves differently from the recording."""
        self._steps = steps
        self._patience = patience
        self.port = 0

    async def __aenter__(self) -> "Replay":
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = 0
        try:
            for wanted, part in self._steps:
                try:
                    async with asyncio.timeout(self._patience):
                        while seen < wanted:
                            seen += await _next_frame(reader, seen == 0)
                except TimeoutError:
                    seen = wanted
                writer.write(part)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client may close at any time
        finally:
            writer.close()


async def _next_frame(reader: asyncio.StreamReader, is_first: bool) -> int:
    if is_first:
        await reader.readexactly(8)
        return 1
    head = await reader.readexactly(7)
    await reader.readexactly(int.from_bytes(head[3:], "big") + 1)
    return 1
