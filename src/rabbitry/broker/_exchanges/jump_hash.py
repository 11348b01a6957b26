"""The hashing of RabbitMQ's x-consistent-hash exchanges: a key comes to the same bucket here as there.

Erlang's phash2 (erts, utils.c) makes a number of the key. It seeds the generator exs1024 (Erlang's module rand), whose
numbers drive jump consistent hashing (Lamping and Veach, https://arxiv.org/abs/1406.2294). The tests hold values of
Erlang/OTP 25.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_BITS_32: Final = 0xFFFFFFFF
_BITS_64: Final = (1 << 64) - 1
_PHASH2: Final = (1 << 27) - 1
_GOLDEN: Final = 0x9E3779B9
_SHIFTS: Final = ((13, 8, 13), (12, 16, 5), (3, 10, 15))
_BLOCK: Final = 12
"""Bytes that are mixed at a time."""
_STATE: Final = 16
"""Words of exs1024's state."""

UNDEFINED: Final = 45_914_356
"""phash2 of the atom `undefined`, which stands for a header or property that a message does not have."""


def hash_text(data: bytes) -> int:
    """Return phash2 of a binary."""
    return _binary(data, 0) & _PHASH2


def hash_field(kind: str, data: bytes) -> int:
    """Return phash2 of a tuple of an atom and a binary, such as {longstr, <<"text">>}."""
    mixed = _number(2, 9, 0)
    return _binary(data, _number(_atom(kind.encode()), 3, mixed)) & _PHASH2


def bucket(key: int, buckets: int) -> int:
    """Return the bucket of a hashed key, less than `buckets`, which is at least 1."""
    numbers = _uniform(key)
    chosen, following = -1, 0
    while following < buckets:
        chosen = following
        following = int((chosen + 1) / next(numbers))
    return chosen


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right, left, last in _SHIFTS:
        a = (a - b - c) & _BITS_32 ^ c >> right
        b = (b - c - a) & _BITS_32 ^ a << left & _BITS_32
        c = (c - a - b) & _BITS_32 ^ b >> last
    return a, b, c


def _binary(data: bytes, mixed: int) -> int:
    """Return Jenkins' hash of a binary, mixed with what came before it."""
    c = _GOLDEN * 13 + mixed & _BITS_32
    if not data:
        return c
    a = b = _GOLDEN
    whole = len(data) - len(data) % _BLOCK
    for at in range(0, whole, _BLOCK):
        a = a + int.from_bytes(data[at : at + 4], "little") & _BITS_32
        b = b + int.from_bytes(data[at + 4 : at + 8], "little") & _BITS_32
        c = c + int.from_bytes(data[at + 8 : at + 12], "little") & _BITS_32
        a, b, c = _mix(a, b, c)
    rest = data[whole:]
    a = a + int.from_bytes(rest[:4], "little") & _BITS_32
    b = b + int.from_bytes(rest[4:8], "little") & _BITS_32
    # The lowest byte of c is the length's.
    c = c + len(data) + (int.from_bytes(rest[8:], "little") << 8) & _BITS_32
    return _mix(a, b, c)[2]


def _number(value: int, constant: int, mixed: int) -> int:
    base = _GOLDEN * constant
    return _mix(base + value & _BITS_32, base & _BITS_32, mixed)[2]


def _atom(text: bytes) -> int:
    """Return the hash of an atom in Erlang's table of atoms (hashpjw)."""
    found = 0
    for byte in text:
        found = (found << 4) + byte & _BITS_32
        high = found & 0xF0000000
        found ^= high >> 24
        found ^= high
    return found


def _uniform(seed: int) -> Iterator[float]:
    """Yield numbers of exs1024 from 0 to 1, seeded with {seed, seed, seed}."""
    state = _seeded(seed)
    while True:
        for index in range(_STATE):
            first, second = state[index], state[(index + 1) % _STATE]
            second ^= second << 31 & _BITS_64
            second ^= second >> 11
            first ^= first >> 30
            new = first ^ second
            state[(index + 1) % _STATE] = new
            yield (new * 1181783497276652981 & _BITS_64) / (1 << 64)


def _seeded(seed: int) -> list[int]:
    parts = [((seed & 0x1FFFFF) + 1) * factor & 0x1FFFFF for factor in (2097131, 2097133, 2097143)]
    word = parts[0] << 43 | parts[1] << 22 | parts[2] << 1 | 1
    state: list[int] = []
    for _ in range(_STATE):
        word ^= word >> 12
        word ^= word << 25 & _BITS_64
        word ^= word >> 27
        state.append(word * 2685821657736338717 & _BITS_64)
    return state[::-1]
