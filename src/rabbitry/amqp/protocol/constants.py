"""Numbers of AMQP 0-9-1 (specification, section 4.2.3 and appendix of constants)."""

from __future__ import annotations

from typing import Final

from rabbitry._fields import IntMembers

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEADERS_0_8: Final = (b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01")
"""The protocol headers of 0-8: most clients send the first, py-amqplib the second."""

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8
FRAME_END: Final = 0xCE
FRAME_OVERHEAD: Final = 8
"""Bytes of a frame beside its payload: type, channel, size, end."""
FRAME_MIN_SIZE: Final = 4096
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CLASS_BASIC: Final = 60

DEFAULT_FRAME_MAX: Final = 131072
DEFAULT_CHANNEL_MAX: Final = 2047
DEFAULT_HEARTBEAT: Final = 60


class Reply(IntMembers):
    """Reply codes (section 1.2 of the specification, and RabbitMQ's use of them)."""

    SUCCESS = 200
    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    INVALID_PATH = 402
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541
