"""The events that the protocol core returns: tuples in wire order, whose first item is the kind.

Tuples and not objects, since one is created for each message (see hot.py).

    (PUBLISH, channel, arguments, header, body)      client → broker
    (DELIVER, channel, arguments, header, body)      broker → client; so are RETURN and GET_OK
    (ACK, channel, delivery_tag, multiple)           either way
    (METHOD, channel, method)                        any other method, decoded
    (HEADER, 0, eight bytes)                         the client's protocol header
    (VIOLATION, channel, error)                      the peer broke the protocol; nothing comes after it

`arguments` are the undecoded bytes of the method's arguments (hot.py has the parsers), `header` is the
content header's payload (properties.py decodes it), `body` the whole body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from rabbitry.amqp.protocol.methods import Method
    from rabbitry.exceptions import ProtocolViolation

PUBLISH: Final = 1
DELIVER: Final = 2
RETURN: Final = 3
GET_OK: Final = 4
ACK: Final = 5
METHOD: Final = 6
HEADER: Final = 7
VIOLATION: Final = 8

if TYPE_CHECKING:
    ContentEvent: TypeAlias = tuple[Literal[1, 2, 3, 4], int, bytes, bytes, bytes]
    AckEvent: TypeAlias = tuple[Literal[5], int, int, bool]
    MethodEvent: TypeAlias = tuple[Literal[6], int, Method]
    HeaderEvent: TypeAlias = tuple[Literal[7], int, bytes]
    ViolationEvent: TypeAlias = tuple[Literal[8], int, ProtocolViolation]
    Event: TypeAlias = ContentEvent | AckEvent | MethodEvent | HeaderEvent | ViolationEvent
else:  # creating the aliases takes longer than loading this module
    ContentEvent = AckEvent = MethodEvent = HeaderEvent = ViolationEvent = Event = tuple
