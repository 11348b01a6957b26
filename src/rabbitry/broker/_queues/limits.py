"""The most messages and bytes that a queue may have (RabbitMQ's docs/maxlength)."""

from __future__ import annotations

from rabbitry.broker._queues.arguments import Rules


class Limits:
    """The limits of one queue, and what happens to what is too much.

    Attributes:
        exist: Whether there is a limit at all.
        refuse: Whether a publish that does not fit is refused; otherwise messages are dropped from the head.
        dead_letter_refused: Whether a refused publish becomes a dead letter.
    """

    __slots__ = ("_length", "_size", "dead_letter_refused", "exist", "refuse")

    def __init__(self, rules: Rules) -> None:
        self._length = rules.max_length
        self._size = rules.max_length_bytes
        self.exist = self._length is not None or self._size is not None
        self.refuse = self.exist and rules.overflow != "drop-head"
        self.dead_letter_refused = rules.overflow == "reject-publish-dlx"

    def are_passed(self, count: int, size: int) -> bool:
        """Return whether messages have to be dropped, of so many with so many bytes of bodies."""
        if not self.exist or self.refuse:
            return False
        return (self._length is not None and count > self._length) or (self._size is not None and size > self._size)

    def have_room(self, count: int, size: int, more: int) -> bool:
        """Return whether a body of `more` bytes fits beside so many messages with so many bytes."""
        return (self._length is None or count < self._length) and (self._size is None or size + more <= self._size)
