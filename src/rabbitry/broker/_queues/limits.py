"""The limits of a queue on messages and bytes (RabbitMQ's docs/maxlength)."""

from __future__ import annotations

from rabbitry.broker._queues.arguments import Rules


class Limits:
    """The limits of one queue, and the overflow behaviour.

    Attributes:
        exist: Whether there is a limit.
        refuse: Whether an excess publish is refused; otherwise messages are dropped from the head.
        dead_letter_refused: Whether a refused publish is dead-lettered.
    """

    __slots__ = ("_length", "_size", "dead_letter_refused", "exist", "refuse")

    def __init__(self, rules: Rules) -> None:
        self._length = rules.max_length
        self._size = rules.max_length_bytes
        self.exist = self._length is not None or self._size is not None
        self.refuse = self.exist and rules.overflow != "drop-head"
        self.dead_letter_refused = rules.overflow == "reject-publish-dlx"

    def are_passed(self, count: int, size: int) -> bool:
        """Return whether messages have to be dropped, given their count and the bytes of their bodies."""
        if not self.exist or self.refuse:
            return False
        return (self._length is not None and count > self._length) or (self._size is not None and size > self._size)

    def have_room(self, count: int, size: int, more: int) -> bool:
        """Return whether a body of `more` bytes fits, given the count and bytes of the messages present."""
        return (self._length is None or count < self._length) and (self._size is None or size + more <= self._size)
