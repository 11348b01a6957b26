"""A message in the broker, and its place in a queue."""


class Message:
    """A message as it came: the bytes of header and body go on unchanged.

    destination: exchange and routing key as two short strings, as publish and deliver carry them.
    """

    __slots__ = ("body", "destination", "header")

    def __init__(self, destination: bytes, header: bytes, body: bytes) -> None:
        self.destination = destination
        self.header = header
        self.body = body


class Entry:
    """A message's place in one queue. `position` orders entries, also those that come back."""

    __slots__ = ("message", "position", "redelivered")

    def __init__(self, position: int, message: Message) -> None:
        self.position = position
        self.message = message
        self.redelivered = False

    def __lt__(self, other: "Entry") -> bool:
        return self.position < other.position
