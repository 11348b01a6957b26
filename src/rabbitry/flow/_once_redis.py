"""The store of done keys, in Redis: a hash for each key, which Redis deletes when it is over.

What is decided about a key is decided in one script, which Redis runs alone. The library comes with the extra `redis`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

from rabbitry.exceptions import UsageError
from rabbitry.flow._once_store import Claim, kept
from rabbitry.flow.exceptions import StoreError

_SECONDS: Final = 30.0
"""Seconds that Redis has for an answer."""

# ARGV: owner, run, now, the end of the lease, milliseconds to keep the key, whether the owner stays. A key that is done
# has no lease.
_CLAIM: Final = """
local owner, run, lease = unpack(redis.call('HMGET', KEYS[1], 'owner', 'run', 'lease'))
if owner then
    if lease == '' then return {'done', owner} end
    local again = owner == ARGV[1] and run ~= ARGV[2]
    if tonumber(lease) >= tonumber(ARGV[3]) and not again then return {'busy', owner} end
end
if not owner or ARGV[6] == '0' then owner = ARGV[1] end
redis.call('HSET', KEYS[1], 'owner', owner, 'run', ARGV[2], 'lease', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'mine', owner}
"""
# ARGV: owner, milliseconds to keep the key.
_DONE: Final = """
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'run', '', 'lease', '')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# ARGV: owner, run, the end of the lease, milliseconds to keep the key.
_HOLD: Final = """
local owner, run, lease = unpack(redis.call('HMGET', KEYS[1], 'owner', 'run', 'lease'))
if owner == ARGV[1] and run == ARGV[2] and lease ~= '' then
    redis.call('HSET', KEYS[1], 'lease', ARGV[3])
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
"""
# ARGV: owner, run.
_RELEASE: Final = """
local owner, run, lease = unpack(redis.call('HMGET', KEYS[1], 'owner', 'run', 'lease'))
if owner == ARGV[1] and run == ARGV[2] and lease ~= '' then redis.call('DEL', KEYS[1]) end
"""


class RedisStore:
    """See `OnceStore`."""

    def __init__(self, url: str, scope: str, window: float) -> None:
        # Not imported by name: its annotations join the answers of its two clients, of no use to a type checker.
        self._redis: Any = importlib.import_module("redis")
        self._prefix = f"rabbitry:once:{quote(scope, safe='')}:"  # without a colon in the scope, which may have some
        self._window = window
        parsed = urlsplit(url)
        self._shown = f"{parsed.scheme}://{parsed.netloc.rpartition('@')[2]}{parsed.path}"
        try:
            self._client: Any = self._redis.Redis.from_url(
                url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, decode_responses=True
            )
        except ValueError as error:
            raise UsageError(f"the store of done keys: {self._shown} is no URL of Redis: {error}") from error
        scripts = (_CLAIM, _DONE, _HOLD, _RELEASE)
        self._claim, self._done, self._hold, self._release = map(self._client.register_script, scripts)
        with self._errors():
            self._client.ping()

    def claim(self, key: str, owner: str, run: str, lease: float, *, keeps_owner: bool = False) -> Claim:
        """See `OnceStore`."""
        now = time.time()
        end, kept_for = now + lease, _milliseconds(max(lease, self._window))
        with self._errors():
            state, of = self._claim(
                keys=[self._prefix + kept(key)], args=[owner, run, repr(now), repr(end), kept_for, int(keeps_owner)]
            )
        return Claim(state, of)

    def done(self, key: str, owner: str) -> None:
        """See `OnceStore`."""
        with self._errors():
            self._done(keys=[self._prefix + kept(key)], args=[owner, _milliseconds(self._window)])

    def hold(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        end, kept_for = time.time() + self._window, _milliseconds(self._window)
        with self._errors():
            self._hold(keys=[self._prefix + kept(key)], args=[owner, run, repr(end), kept_for])

    def release(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        with self._errors():
            self._release(keys=[self._prefix + kept(key)], args=[owner, run])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._redis.RedisError as error:
            text = str(error).partition("\n")[0]
            raise StoreError(f"the store of done keys {self._shown} does not answer: {text}") from error


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
