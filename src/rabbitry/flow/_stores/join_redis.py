"""The store of joins in Redis: two hashes for each job, which Redis deletes when they are over.

What is decided about a job is decided in one script, which Redis runs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote

from rabbitry.flow._parts import Late, Part
from rabbitry.flow._stores import join_answers as answers
from rabbitry.flow._stores.redis import Scripts, milliseconds
from rabbitry.flow.exceptions import Retry, StoreError

_T = TypeVar("_T")

# KEYS: the job, with `run` only while one has begun and not failed; and its parts, the bodies by their number.
# ARGV of both begins with: total, message, run, milliseconds to keep the job.
_BEGIN: Final = """
local total, state, owner, run = unpack(redis.call('HMGET', KEYS[1], 'total', 'state', 'owner', 'run'))
if not total then
    state = 'open'
    redis.call('HSET', KEYS[1], 'total', ARGV[1], 'state', state, 'size', 0)
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
elseif total ~= ARGV[1] then
    return {'split', total}
end
local function claim(to)
    redis.call('HSET', KEYS[1], 'state', to, 'owner', ARGV[2], 'run', ARGV[3])
    return {'run', redis.call('HGETALL', KEYS[2])}
end
if state == 'claimed' and owner == ARGV[2] then
    if run == ARGV[3] then return {'busy'} end
    return claim(state)
end
"""
# ARGV: …, number, body, the most bytes of all bodies.
_ARRIVE: Final = f"""{_BEGIN}
local known = redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1
if state == 'expired' or (state ~= 'open' and not known) then return {{'late'}} end
if known then return {{'none'}} end
local size = redis.call('HGET', KEYS[1], 'size') + #ARGV[6]
if size > tonumber(ARGV[7]) then return {{'large'}} end
redis.call('HSET', KEYS[1], 'size', size)
redis.call('HSET', KEYS[2], ARGV[5], ARGV[6])
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
if redis.call('HLEN', KEYS[2]) < tonumber(ARGV[1]) then return {{'none'}} end
return claim('claimed')
"""
# ARGV: …, whether the job is joined with what is there.
_END: Final = f"""{_BEGIN}
if state == 'open' and (ARGV[5] == '1' or ARGV[1] == '0') then return claim('claimed') end
if state ~= 'open' and (state ~= 'expired' or owner ~= ARGV[2]) then return {{'none'}} end
claim('expired')
return {{'missing', redis.call('HKEYS', KEYS[2])}}
"""
# KEYS: the job. ARGV: run.
_RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'run') == ARGV[1] then redis.call('HDEL', KEYS[1], 'run') end
"""
_FINISH: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return end
redis.call('HSET', KEYS[1], 'state', 'finished', 'size', 0)
for _, number in ipairs(redis.call('HKEYS', KEYS[2])) do redis.call('HSET', KEYS[2], number, '') end
"""


class RedisStore:
    """The jobs of one join: see `JoinStore`, and `join_sql.SqlStore` for the arguments."""

    def __init__(self, url: str, queue: str, within: float, time_limit: float) -> None:
        self._prefix = f"rabbitry:join:{quote(queue, safe='', errors='surrogatepass')}:"
        self._within = within
        self._time_limit = time_limit
        self._scripts = Scripts(url, "a join's store", decodes=False)
        scripts = (_ARRIVE, _END, _RELEASE, _FINISH)
        self._arrive, self._end, self._release, self._finish = map(self._scripts.script, scripts)

    def arrive(self, part: Part, message: str, run: str, body: bytes) -> list[bytes] | None:
        """See `JoinStore`."""
        args = [*self._given(part, message, run), part.number, body, answers.MOST_BYTES]
        return self._answered(part, self._do(lambda: self._arrive(self._keys(part.job), args)))

    def end(self, part: Part, message: str, run: str, late: Late) -> list[bytes] | None:
        """See `JoinStore`."""
        args = [*self._given(part, message, run), int(late == "join")]
        return self._answered(part, self._do(lambda: self._end(self._keys(part.job), args)))

    def release(self, job: str, run: str) -> None:
        """See `JoinStore`."""
        self._do(lambda: self._release(self._keys(job), [run]))

    def finish(self, job: str) -> None:
        """See `JoinStore`."""
        self._do(lambda: self._finish(self._keys(job), []))

    def close(self) -> None:
        """Close the connections."""
        self._scripts.close()

    def _keys(self, job: str) -> list[str]:
        name = self._prefix + quote(job, safe="", errors="surrogatepass")
        return [name, f"{name}:parts"]

    def _given(self, part: Part, message: str, run: str) -> list[object]:
        kept_for = milliseconds(self._within + answers.KEPT)
        return [part.total, message.encode(errors="surrogatepass"), run, kept_for]

    @staticmethod
    def _do(call: Callable[[], _T]) -> _T:
        try:
            return call()
        except StoreError as error:
            raise Retry(str(error), count=False) from error

    def _answered(self, part: Part, answer: list[Any]) -> list[bytes] | None:
        """Return the bodies of all parts if the join is to run now. Raises Reject and Retry."""
        match answer[0]:
            case b"run":
                flat = answer[1]
                found = {int(number): bytes(body) for number, body in zip(flat[::2], flat[1::2], strict=True)}
                return [found[number] for number in sorted(found)]
            case b"busy":
                raise answers.being_joined(part, self._time_limit)
            case b"late":
                raise answers.came_late(part)
            case b"large":
                raise answers.too_large(part, answers.MOST_BYTES)
            case b"split":
                raise answers.split_otherwise(part, int(answer[1]))
            case b"missing":
                raise answers.incomplete(part, {int(number) for number in answer[1]}, self._within)
        return None
