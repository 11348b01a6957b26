"""A message in the broker, and its place in a queue."""

from warren.amqp.protocol.properties import FLAG_CONTENT_ENCODING, FLAG_CONTENT_TYPE, FLAG_DELIVERY_MODE


class Message:
    """A message as it came: the bytes of header and body go on unchanged.

    destination: exchange and routing key as two short strings, as publish and deliver carry them. persistent:
    whether it is to survive a restart in durable queues. expiration: milliseconds, None for none. priority:
    0 to 255. hidden_keys: routing keys of a BCC header, which no consumer sees. id: its number in the store,
    0 as long as it is not there. copies: how many queues have it in the store.
    """

    __slots__ = ("body", "copies", "destination", "expiration", "header", "hidden_keys", "id", "persistent", "priority")

    def __init__(self, destination: bytes, header: bytes, body: bytes, persistent: bool) -> None:
        self.destination = destination
        self.header = header
        self.body = body
        self.persistent = persistent
        self.expiration: int | None = None
        self.priority = 0
        self.hidden_keys: tuple[str, ...] = ()
        self.id = 0
        self.copies = 0


class Entry:
    """A message's place in one queue.

    position: orders entries, also those that come back. expires: POSIX seconds, 0 for never. deliveries: how
    often it came back to a quorum queue. stored: whether the store has it, or will.
    """

    __slots__ = ("deliveries", "expires", "message", "position", "priority", "redelivered", "stored")

    def __init__(self, position: int, message: Message) -> None:
        self.position = position
        self.message = message
        self.priority = 0
        self.expires = 0.0
        self.redelivered = False
        self.deliveries = 0
        self.stored = False

    def __lt__(self, other: "Entry") -> bool:
        return self.position < other.position


def is_persistent(header: bytes, flags: int) -> bool:
    """Read delivery_mode from a content header whose `flags` have no headers table. Raises IndexError where cut."""
    if not flags & FLAG_DELIVERY_MODE:
        return False
    offset = 14
    if flags & FLAG_CONTENT_TYPE:
        offset += 1 + header[offset]
    if flags & FLAG_CONTENT_ENCODING:
        offset += 1 + header[offset]
    return header[offset] == 2
