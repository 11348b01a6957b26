"""The store of done keys: those of the messages that were published, or handled, once.

What is decided about a key is decided in one transaction that holds its row, so that of any number of programs one does
it. A key is claimed before and done afterwards. A claim whose lease is over may be taken: the program that made it was
killed.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

State: TypeAlias = Literal["mine", "busy", "done"]
"""Of a key: claimed by the caller now, claimed by another one, or done."""
_LONGEST_KEY: Final = 255


class Claim(NamedTuple):
    """The answer to a claim. owner: the message that the key belongs to."""

    state: State
    owner: str


class OnceStore(Protocol):
    """The keys of one scope. Used from any thread. All methods raise StoreError."""

    def claim(self, key: str, owner: str, run: str, lease: float, *, keeps_owner: bool = False) -> Claim:
        """Claim a key, unless it is done or another one's claim holds.

        Args:
            key: The key.
            owner: The id of the message.
            run: Counts the deliveries of the message. With another count its claim is its own; with the same, the
                message is a copy.
            lease: Seconds for which the claim holds.
            keeps_owner: Whether a claim that is taken from another one keeps the owner, which is then returned.
        """

    def done(self, key: str, owner: str) -> None:
        """Note that a key is done. It is forgotten when the window is over."""

    def hold(self, key: str, owner: str, run: str) -> None:
        """Let a claim, if it is still that of this owner and run, hold until the window is over."""

    def release(self, key: str, owner: str, run: str) -> None:
        """Drop a claim, if it is still that of this owner and run."""

    def close(self) -> None:
        """Close the connections."""


def kept(key: str) -> str:
    """Return the text that is stored for a key, or for an id, which may come from any program.

    It is short, and every database can store it: PostgreSQL refuses NUL, and half a surrogate pair can't be encoded.
    """
    if len(key) <= _LONGEST_KEY and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
