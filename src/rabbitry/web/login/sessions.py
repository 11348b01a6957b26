"""Sessions of signed-in users, and the tokens that their pages send. They live in memory, and end with the process."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

IDLE: Final = 8 * 3600.0
"""Seconds after the last request at which a session ends. A WebSocket that is open counts as a request."""
LONGEST: Final = 7 * 24 * 3600.0
"""Seconds after which a session ends even if it is in use."""
MOST: Final = 2048
"""Sessions at once; beyond it, the one that was unused for the longest time ends."""
MOST_OF_USER: Final = 64
"""Sessions of one name at once; beyond it, the one that was unused for the longest time ends."""
TOKEN_HEADER: Final = "X-Rabbitry-Token"  # noqa: S105 # a header's name


class Session:
    """One login.

    Attributes:
        name: The user's name.
        is_shared: Whether they signed in with the shared password.
        by_provider: Whether they signed in through the OpenID Connect provider.
        ended: Set when the session ends, so that its WebSockets close.
    """

    def __init__(self, name: str, *, is_shared: bool, now: float, by_provider: bool = False) -> None:
        self.key: str = secrets.token_urlsafe(32)
        self.name = name
        self.is_shared = is_shared
        self.by_provider: bool = by_provider
        self.begun = now
        self.used = now
        self.ended: asyncio.Event = asyncio.Event()


class Sessions:
    """The sessions by their keys, which only their browsers know.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the one used last is at the end
        self._without_key: set[Session] = set()
        self._secret = secrets.token_bytes(32)

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    def begin(self, name: str, *, is_shared: bool = False, by_provider: bool = False) -> Session:
        """Begin a session with a new random key."""
        session = Session(name, is_shared=is_shared, now=self._clock(), by_provider=by_provider)
        same = [each for each in self._sessions.values() if each.name == name]
        if len(same) >= MOST_OF_USER:
            self.end(same[0])
        if len(self._sessions) >= MOST:
            self.end(next(iter(self._sessions.values())))
        self._sessions[session.key] = session
        return session

    @contextmanager
    def without_key(self, name: str, *, is_shared: bool) -> Iterator[Session]:
        """Open a session of a WebSocket alone, whose user has no cookie, until the block is left."""
        session = Session(name, is_shared=is_shared, now=self._clock())
        self._without_key.add(session)
        try:
            yield session
        finally:
            self._without_key.discard(session)

    def find(self, key: str) -> Session | None:
        """Return the session with a key, and note that it is in use; None if it has ended."""
        # A key has 256 random bits: the time of a look-up does not help to guess one.
        session = self._sessions.get(key)
        if session is None:
            return None
        if self.left(session) <= 0:
            self.end(session)
            return None
        session.used = self._clock()
        self._sessions.move_to_end(key)
        return session

    def left(self, session: Session) -> float:
        """Return the seconds until a session ends if nothing uses it."""
        return min(session.used + IDLE, session.begun + LONGEST) - self._clock()

    def touch(self, session: Session) -> None:
        """Note that a session is in use."""
        self.find(session.key)

    def end(self, session: Session) -> None:
        """End a session, and close its WebSockets."""
        self._sessions.pop(session.key, None)
        session.ended.set()

    def end_of(self, gone: Callable[[Session], bool]) -> None:
        """End the sessions for which `gone` returns true."""
        for session in [each for each in (*self._sessions.values(), *self._without_key) if gone(each)]:
            self.end(session)

    def token(self, key: str = "") -> str:
        """Return the token for pages of the session with this key; of no session if the key is empty."""
        return hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()

    def is_token(self, given: str, key: str = "") -> bool:
        """Return whether a token is that of the session with this key."""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token(key).encode())
