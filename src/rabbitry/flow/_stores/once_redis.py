"""The store of done keys, in Redis: a hash for each key, which Redis deletes when it is over.

What is decided about a key is decided in one script, which Redis runs alone.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import quote

from rabbitry.flow._stores.once_claim import Claim, kept
from rabbitry.flow._stores.redis import Scripts, milliseconds

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
        self._prefix = f"rabbitry:once:{quote(scope, safe='')}:"  # without a colon in the scope, which may have some
        self._window = window
        self._scripts = Scripts(url, "the store of done keys", decodes=True)
        self._claim, self._done, self._hold, self._release = map(self._scripts.script, (_CLAIM, _DONE, _HOLD, _RELEASE))

    def claim(self, key: str, owner: str, run: str, lease: float, *, keeps_owner: bool = False) -> Claim:
        """See `OnceStore`."""
        now = time.time()
        end, kept_for = now + lease, milliseconds(max(lease, self._window))
        state, of = self._claim(
            keys=[self._prefix + kept(key)], args=[owner, run, repr(now), repr(end), kept_for, int(keeps_owner)]
        )
        return Claim(state, of)

    def done(self, key: str, owner: str) -> None:
        """See `OnceStore`."""
        self._done(keys=[self._prefix + kept(key)], args=[owner, milliseconds(self._window)])

    def hold(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        end, kept_for = time.time() + self._window, milliseconds(self._window)
        self._hold(keys=[self._prefix + kept(key)], args=[owner, run, repr(end), kept_for])

    def release(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        self._release(keys=[self._prefix + kept(key)], args=[owner, run])

    def close(self) -> None:
        """Close the connections."""
        self._scripts.close()
