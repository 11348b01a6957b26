"""Recorded sessions and their mutations: frames that are dropped, doubled, swapped, cut, mixed or changed."""

import functools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

_CORPUS: Final = Path(__file__).parent / "corpus"
_INTERESTING: Final = (0, 1, 2, 0x7F, 0x80, 0xCE, 0xFE, 0xFF)
_MOST_CHANGES: Final = 4


@functools.cache
def corpus(kind: str) -> dict[str, bytes]:
    """Return the sessions of a kind by name ("broker": data sent to a broker; "client": data sent to a client)."""
    found = {path.stem: path.read_bytes() for path in sorted((_CORPUS / kind).glob("*.bin"))}
    assert found, f"no sessions in {_CORPUS / kind}"
    return found


def frames(data: bytes) -> Iterator[bytes]:
    """Yield a session's protocol header and its frames; a broken frame is yielded as it is."""
    if data.startswith(b"AMQP"):
        yield data[:8]
        data = data[8:]
    while data:
        end = 8 + int.from_bytes(data[3:7], "big")
        yield data[:end]
        data = data[end:]


def mutated(random: Random, pieces: list[bytes], others: list[bytes]) -> list[bytes]:
    """Change a session's frames in a few places. others: frames that may be mixed in."""
    pieces = list(pieces)
    for _ in range(random.randint(1, _MOST_CHANGES)):
        at = random.randrange(len(pieces)) if pieces else 0
        match random.randrange(9):
            case 0:
                del pieces[at : at + 1]
            case 1:
                pieces.insert(at, random.choice(others))
            case 2:
                pieces[at:at] = pieces[at : at + random.randint(1, 3)]
            case 3 if len(pieces) > 1:
                other = random.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 4 if pieces:
                pieces[at] = pieces[at][: random.randrange(len(pieces[at]) + 1)]
            case 5 if pieces:
                pieces[at] = _on_another_channel(random, pieces[at])
            case 6 if pieces:
                pieces[at] = _resized(random, pieces[at])
            case 7:
                pieces.insert(at, random.randbytes(random.randint(1, 40)))
            case _ if pieces:
                pieces[at] = _changed(random, pieces[at])
    return pieces


def _on_another_channel(random: Random, frame: bytes) -> bytes:
    return frame[:1] + random.choice((0, 1, 2, 3, 2047, 65535)).to_bytes(2, "big") + frame[3:]


def _resized(random: Random, frame: bytes) -> bytes:
    """Change the payload's length, and usually the frame's size field with it, so that the frame stays valid."""
    payload, end = frame[7:-1], frame[-1:]
    at = random.randrange(len(payload) + 1)
    changed = payload[:at] + random.randbytes(random.randint(0, 3)) + payload[at + random.randint(0, 3) :]
    size = len(changed) if random.random() < 0.8 else random.choice((0, 1, len(changed) + 9, 1 << 17, (1 << 32) - 1))
    return frame[:3] + size.to_bytes(4, "big") + changed + end


def _changed(random: Random, frame: bytes) -> bytes:
    """Change bytes, mostly of the payload."""
    changed = bytearray(frame)
    for _ in range(random.randint(1, 3)):
        if changed:
            at = random.randrange(min(7, len(changed) - 1) if len(changed) > 8 else 0, len(changed))
            changed[at] = random.choice((*_INTERESTING, random.randrange(256), changed[at] ^ 1 << random.randrange(8)))
    return bytes(changed)


def in_chunks(random: Random, data: bytes) -> Iterator[bytes]:
    """Cut a stream into chunks of random sizes, as a network may."""
    while data:
        size = random.choice((1, 7, 8, 100, 4096, 1 << 17))
        yield data[:size]
        data = data[size:]
