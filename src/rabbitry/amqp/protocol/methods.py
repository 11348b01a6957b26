"""The methods of AMQP 0-9-1 with RabbitMQ's extensions, each a NamedTuple of its arguments.

The decorator names class and method id, the sender, and the wire layout, a letter for each argument: o octet, h short,
l long, q longlong, s short string, S long string, b bit, t table. Reserved arguments are sent as zero and discarded on
receipt: 0 short, 1 short string, 2 bit, 3 long string.
(Specification, section 1, and amqp0-9-1.xml.)

Fields have the specification's names, except `global_`, since `global` is a keyword. encoding.py turns methods into
bytes and back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rabbitry._fields import Fields
from rabbitry.amqp.protocol.tables import Table

NO_ARGUMENTS: Final[Table] = {}


CLIENT: Final = 1
SERVER: Final = 2
BOTH: Final = CLIENT | SERVER
"""The sides that may send a method, a bit for each."""


class Layout(Fields):
    """The wire layout of a method: its ids, its sender, its class and the types of its arguments."""

    class_id: int
    method_id: int
    sender: int
    make: Callable[..., Method]
    letters: str

    @property
    def signature(self) -> int:
        """Class and method id as one number, class first."""
        return self.class_id << 16 | self.method_id


BY_SIGNATURE: dict[int, Layout] = {}
BY_TYPE: dict[type, Layout] = {}

_T = TypeVar("_T", bound=type)


def _method(class_id: int, method_id: int, sender: int, letters: str) -> Callable[[_T], _T]:
    def register(cls: _T) -> _T:
        layout = Layout(class_id, method_id, sender, cls, letters)
        BY_SIGNATURE[layout.signature] = layout
        BY_TYPE[cls] = layout
        return cls

    return register


@_method(10, 10, SERVER, "ootSS")
class ConnectionStart(Fields):
    version_major: int = 0
    version_minor: int = 9
    server_properties: Table = NO_ARGUMENTS
    mechanisms: bytes = b"PLAIN AMQPLAIN"
    locales: bytes = b"en_US"


@_method(10, 11, CLIENT, "tsSs")
class ConnectionStartOk(Fields):
    client_properties: Table = NO_ARGUMENTS
    mechanism: str = "PLAIN"
    response: bytes = b""
    locale: str = "en_US"


@_method(10, 20, SERVER, "S")
class ConnectionSecure(Fields):
    challenge: bytes = b""


@_method(10, 21, CLIENT, "S")
class ConnectionSecureOk(Fields):
    response: bytes = b""


@_method(10, 30, SERVER, "hlh")
class ConnectionTune(Fields):
    channel_max: int = 0
    frame_max: int = 0
    heartbeat: int = 0


@_method(10, 31, CLIENT, "hlh")
class ConnectionTuneOk(Fields):
    channel_max: int = 0
    frame_max: int = 0
    heartbeat: int = 0


@_method(10, 40, CLIENT, "s12")
class ConnectionOpen(Fields):
    virtual_host: str = "/"


@_method(10, 41, SERVER, "1")
class ConnectionOpenOk(Fields):
    pass


@_method(10, 50, BOTH, "hshh")
class ConnectionClose(Fields):
    reply_code: int = 0
    reply_text: str = ""
    class_id: int = 0
    method_id: int = 0


@_method(10, 51, BOTH, "")
class ConnectionCloseOk(Fields):
    pass


@_method(10, 60, SERVER, "s")
class ConnectionBlocked(Fields):
    reason: str = ""


@_method(10, 61, SERVER, "")
class ConnectionUnblocked(Fields):
    pass


@_method(10, 70, CLIENT, "Ss")
class ConnectionUpdateSecret(Fields):
    new_secret: bytes = b""
    reason: str = ""


@_method(10, 71, SERVER, "")
class ConnectionUpdateSecretOk(Fields):
    pass


@_method(20, 10, CLIENT, "1")
class ChannelOpen(Fields):
    pass


@_method(20, 11, SERVER, "3")
class ChannelOpenOk(Fields):
    pass


@_method(20, 20, BOTH, "b")
class ChannelFlow(Fields):
    active: bool = True


@_method(20, 21, BOTH, "b")
class ChannelFlowOk(Fields):
    active: bool = True


@_method(20, 40, BOTH, "hshh")
class ChannelClose(Fields):
    reply_code: int = 0
    reply_text: str = ""
    class_id: int = 0
    method_id: int = 0


@_method(20, 41, BOTH, "")
class ChannelCloseOk(Fields):
    pass


@_method(30, 10, CLIENT, "sbbbbb")
class AccessRequest(Fields):
    realm: str = ""
    exclusive: bool = False
    passive: bool = False
    active: bool = False
    write: bool = False
    read: bool = False


@_method(30, 11, SERVER, "h")
class AccessRequestOk(Fields):
    ticket: int = 1


@_method(40, 10, CLIENT, "0ssbbbbbt")
class ExchangeDeclare(Fields):
    exchange: str = ""
    type: str = "direct"
    passive: bool = False
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(40, 11, SERVER, "")
class ExchangeDeclareOk(Fields):
    pass


@_method(40, 20, CLIENT, "0sbb")
class ExchangeDelete(Fields):
    exchange: str = ""
    if_unused: bool = False
    nowait: bool = False


@_method(40, 21, SERVER, "")
class ExchangeDeleteOk(Fields):
    pass


@_method(40, 30, CLIENT, "0sssbt")
class ExchangeBind(Fields):
    destination: str = ""
    source: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(40, 31, SERVER, "")
class ExchangeBindOk(Fields):
    pass


@_method(40, 40, CLIENT, "0sssbt")
class ExchangeUnbind(Fields):
    destination: str = ""
    source: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(40, 51, SERVER, "")
class ExchangeUnbindOk(Fields):
    pass


@_method(50, 10, CLIENT, "0sbbbbbt")
class QueueDeclare(Fields):
    queue: str = ""
    passive: bool = False
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(50, 11, SERVER, "sll")
class QueueDeclareOk(Fields):
    queue: str = ""
    message_count: int = 0
    consumer_count: int = 0


@_method(50, 20, CLIENT, "0sssbt")
class QueueBind(Fields):
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(50, 21, SERVER, "")
class QueueBindOk(Fields):
    pass


@_method(50, 30, CLIENT, "0sb")
class QueuePurge(Fields):
    queue: str = ""
    nowait: bool = False


@_method(50, 31, SERVER, "l")
class QueuePurgeOk(Fields):
    message_count: int = 0


@_method(50, 40, CLIENT, "0sbbb")
class QueueDelete(Fields):
    queue: str = ""
    if_unused: bool = False
    if_empty: bool = False
    nowait: bool = False


@_method(50, 41, SERVER, "l")
class QueueDeleteOk(Fields):
    message_count: int = 0


@_method(50, 50, CLIENT, "0ssst")
class QueueUnbind(Fields):
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    arguments: Table = NO_ARGUMENTS


@_method(50, 51, SERVER, "")
class QueueUnbindOk(Fields):
    pass


@_method(60, 10, CLIENT, "lhb")
class BasicQos(Fields):
    prefetch_size: int = 0
    prefetch_count: int = 0
    global_: bool = False


@_method(60, 11, SERVER, "")
class BasicQosOk(Fields):
    pass


@_method(60, 20, CLIENT, "0ssbbbbt")
class BasicConsume(Fields):
    queue: str = ""
    consumer_tag: str = ""
    no_local: bool = False
    no_ack: bool = False
    exclusive: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@_method(60, 21, SERVER, "s")
class BasicConsumeOk(Fields):
    consumer_tag: str = ""


@_method(60, 30, BOTH, "sb")
class BasicCancel(Fields):
    consumer_tag: str = ""
    nowait: bool = False


@_method(60, 31, BOTH, "s")
class BasicCancelOk(Fields):
    consumer_tag: str = ""


@_method(60, 40, CLIENT, "0ssbb")
class BasicPublish(Fields):
    exchange: str = ""
    routing_key: str = ""
    mandatory: bool = False
    immediate: bool = False


@_method(60, 50, SERVER, "hsss")
class BasicReturn(Fields):
    reply_code: int = 0
    reply_text: str = ""
    exchange: str = ""
    routing_key: str = ""


@_method(60, 60, SERVER, "sqbss")
class BasicDeliver(Fields):
    consumer_tag: str = ""
    delivery_tag: int = 0
    redelivered: bool = False
    exchange: str = ""
    routing_key: str = ""


@_method(60, 70, CLIENT, "0sb")
class BasicGet(Fields):
    queue: str = ""
    no_ack: bool = False


@_method(60, 71, SERVER, "qbssl")
class BasicGetOk(Fields):
    delivery_tag: int = 0
    redelivered: bool = False
    exchange: str = ""
    routing_key: str = ""
    message_count: int = 0


@_method(60, 72, SERVER, "1")
class BasicGetEmpty(Fields):
    pass


@_method(60, 80, BOTH, "qb")
class BasicAck(Fields):
    delivery_tag: int = 0
    multiple: bool = False


@_method(60, 90, CLIENT, "qb")
class BasicReject(Fields):
    delivery_tag: int = 0
    requeue: bool = True


@_method(60, 100, CLIENT, "b")
class BasicRecoverAsync(Fields):
    requeue: bool = False


@_method(60, 110, CLIENT, "b")
class BasicRecover(Fields):
    requeue: bool = False


@_method(60, 111, SERVER, "")
class BasicRecoverOk(Fields):
    pass


@_method(60, 120, BOTH, "qbb")
class BasicNack(Fields):
    delivery_tag: int = 0
    multiple: bool = False
    requeue: bool = True


@_method(85, 10, CLIENT, "b")
class ConfirmSelect(Fields):
    nowait: bool = False


@_method(85, 11, SERVER, "")
class ConfirmSelectOk(Fields):
    pass


@_method(90, 10, CLIENT, "")
class TxSelect(Fields):
    pass


@_method(90, 11, SERVER, "")
class TxSelectOk(Fields):
    pass


@_method(90, 20, CLIENT, "")
class TxCommit(Fields):
    pass


@_method(90, 21, SERVER, "")
class TxCommitOk(Fields):
    pass


@_method(90, 30, CLIENT, "")
class TxRollback(Fields):
    pass


@_method(90, 31, SERVER, "")
class TxRollbackOk(Fields):
    pass


if TYPE_CHECKING:
    Method: TypeAlias = (
        ConnectionStart
        | ConnectionStartOk
        | ConnectionSecure
        | ConnectionSecureOk
        | ConnectionTune
        | ConnectionTuneOk
        | ConnectionOpen
        | ConnectionOpenOk
        | ConnectionClose
        | ConnectionCloseOk
        | ConnectionBlocked
        | ConnectionUnblocked
        | ConnectionUpdateSecret
        | ConnectionUpdateSecretOk
        | ChannelOpen
        | ChannelOpenOk
        | ChannelFlow
        | ChannelFlowOk
        | ChannelClose
        | ChannelCloseOk
        | AccessRequest
        | AccessRequestOk
        | ExchangeDeclare
        | ExchangeDeclareOk
        | ExchangeDelete
        | ExchangeDeleteOk
        | ExchangeBind
        | ExchangeBindOk
        | ExchangeUnbind
        | ExchangeUnbindOk
        | QueueDeclare
        | QueueDeclareOk
        | QueueBind
        | QueueBindOk
        | QueuePurge
        | QueuePurgeOk
        | QueueDelete
        | QueueDeleteOk
        | QueueUnbind
        | QueueUnbindOk
        | BasicQos
        | BasicQosOk
        | BasicConsume
        | BasicConsumeOk
        | BasicCancel
        | BasicCancelOk
        | BasicPublish
        | BasicReturn
        | BasicDeliver
        | BasicGet
        | BasicGetOk
        | BasicGetEmpty
        | BasicAck
        | BasicReject
        | BasicRecoverAsync
        | BasicRecover
        | BasicRecoverOk
        | BasicNack
        | ConfirmSelect
        | ConfirmSelectOk
        | TxSelect
        | TxSelectOk
        | TxCommit
        | TxCommitOk
        | TxRollback
        | TxRollbackOk
    )
else:  # a union of 66 classes takes 2 ms to make
    Method = Fields


def method_name(class_id: int, method_id: int) -> str:
    """Return a method's name as the specification writes it, such as `queue.declare`, or its numbers."""
    layout = BY_SIGNATURE.get(class_id << 16 | method_id)
    if layout is None:
        return f"{class_id}.{method_id}"
    name: str = layout.make.__name__
    cut = next(i for i, letter in enumerate(name) if i and letter.isupper())
    words = "".join("-" + letter.lower() if letter.isupper() else letter for letter in name[cut:])
    return f"{name[:cut].lower()}.{words[1:]}"
