"""The methods of AMQP 0-9-1 with RabbitMQ's extensions, each a NamedTuple of its arguments.

Fields have the specification's names, except `global_`, since `global` is a keyword. layouts.py has the decorator, and
encoding.py turns methods into bytes and back. The methods that few clients send are in _seldom.py. They are imported
from here like all others, and loaded when the first of them is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rabbitry._fields import Fields
from rabbitry.amqp.protocol.layouts import BOTH, BY_SIGNATURE, CLIENT, NO_ARGUMENTS, SERVER, method
from rabbitry.amqp.protocol.tables import Table


@method(10, 10, SERVER, "ootSS")
class ConnectionStart(Fields):
    version_major: int = 0
    version_minor: int = 9
    server_properties: Table = NO_ARGUMENTS
    mechanisms: bytes = b"PLAIN AMQPLAIN"
    locales: bytes = b"en_US"


@method(10, 11, CLIENT, "tsSs")
class ConnectionStartOk(Fields):
    client_properties: Table = NO_ARGUMENTS
    mechanism: str = "PLAIN"
    response: bytes = b""
    locale: str = "en_US"


@method(10, 20, SERVER, "S")
class ConnectionSecure(Fields):
    challenge: bytes = b""


@method(10, 21, CLIENT, "S")
class ConnectionSecureOk(Fields):
    response: bytes = b""


@method(10, 30, SERVER, "hlh")
class ConnectionTune(Fields):
    channel_max: int = 0
    frame_max: int = 0
    heartbeat: int = 0


@method(10, 31, CLIENT, "hlh")
class ConnectionTuneOk(Fields):
    channel_max: int = 0
    frame_max: int = 0
    heartbeat: int = 0


@method(10, 40, CLIENT, "s12")
class ConnectionOpen(Fields):
    virtual_host: str = "/"


@method(10, 41, SERVER, "1")
class ConnectionOpenOk(Fields):
    pass


@method(10, 50, BOTH, "hshh")
class ConnectionClose(Fields):
    reply_code: int = 0
    reply_text: str = ""
    class_id: int = 0
    method_id: int = 0


@method(10, 51, BOTH, "")
class ConnectionCloseOk(Fields):
    pass


@method(10, 60, SERVER, "s")
class ConnectionBlocked(Fields):
    reason: str = ""


@method(10, 61, SERVER, "")
class ConnectionUnblocked(Fields):
    pass


@method(10, 70, CLIENT, "Ss")
class ConnectionUpdateSecret(Fields):
    new_secret: bytes = b""
    reason: str = ""


@method(10, 71, SERVER, "")
class ConnectionUpdateSecretOk(Fields):
    pass


@method(20, 10, CLIENT, "1")
class ChannelOpen(Fields):
    pass


@method(20, 11, SERVER, "3")
class ChannelOpenOk(Fields):
    pass


@method(20, 20, BOTH, "b")
class ChannelFlow(Fields):
    active: bool = True


@method(20, 21, BOTH, "b")
class ChannelFlowOk(Fields):
    active: bool = True


@method(20, 40, BOTH, "hshh")
class ChannelClose(Fields):
    reply_code: int = 0
    reply_text: str = ""
    class_id: int = 0
    method_id: int = 0


@method(20, 41, BOTH, "")
class ChannelCloseOk(Fields):
    pass


@method(40, 10, CLIENT, "0ssbbbbbt")
class ExchangeDeclare(Fields):
    exchange: str = ""
    type: str = "direct"
    passive: bool = False
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(40, 11, SERVER, "")
class ExchangeDeclareOk(Fields):
    pass


@method(50, 10, CLIENT, "0sbbbbbt")
class QueueDeclare(Fields):
    queue: str = ""
    passive: bool = False
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(50, 11, SERVER, "sll")
class QueueDeclareOk(Fields):
    queue: str = ""
    message_count: int = 0
    consumer_count: int = 0


@method(50, 20, CLIENT, "0sssbt")
class QueueBind(Fields):
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(50, 21, SERVER, "")
class QueueBindOk(Fields):
    pass


@method(60, 10, CLIENT, "lhb")
class BasicQos(Fields):
    prefetch_size: int = 0
    prefetch_count: int = 0
    global_: bool = False


@method(60, 11, SERVER, "")
class BasicQosOk(Fields):
    pass


@method(60, 20, CLIENT, "0ssbbbbt")
class BasicConsume(Fields):
    queue: str = ""
    consumer_tag: str = ""
    no_local: bool = False
    no_ack: bool = False
    exclusive: bool = False
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(60, 21, SERVER, "s")
class BasicConsumeOk(Fields):
    consumer_tag: str = ""


@method(60, 30, BOTH, "sb")
class BasicCancel(Fields):
    consumer_tag: str = ""
    nowait: bool = False


@method(60, 31, BOTH, "s")
class BasicCancelOk(Fields):
    consumer_tag: str = ""


@method(60, 40, CLIENT, "0ssbb")
class BasicPublish(Fields):
    exchange: str = ""
    routing_key: str = ""
    mandatory: bool = False
    immediate: bool = False


@method(60, 50, SERVER, "hsss")
class BasicReturn(Fields):
    reply_code: int = 0
    reply_text: str = ""
    exchange: str = ""
    routing_key: str = ""


@method(60, 60, SERVER, "sqbss")
class BasicDeliver(Fields):
    consumer_tag: str = ""
    delivery_tag: int = 0
    redelivered: bool = False
    exchange: str = ""
    routing_key: str = ""


@method(60, 70, CLIENT, "0sb")
class BasicGet(Fields):
    queue: str = ""
    no_ack: bool = False


@method(60, 71, SERVER, "qbssl")
class BasicGetOk(Fields):
    delivery_tag: int = 0
    redelivered: bool = False
    exchange: str = ""
    routing_key: str = ""
    message_count: int = 0


@method(60, 72, SERVER, "1")
class BasicGetEmpty(Fields):
    pass


@method(60, 80, BOTH, "qb")
class BasicAck(Fields):
    delivery_tag: int = 0
    multiple: bool = False


@method(60, 90, CLIENT, "qb")
class BasicReject(Fields):
    delivery_tag: int = 0
    requeue: bool = True


@method(60, 120, BOTH, "qbb")
class BasicNack(Fields):
    delivery_tag: int = 0
    multiple: bool = False
    requeue: bool = True


@method(85, 10, CLIENT, "b")
class ConfirmSelect(Fields):
    nowait: bool = False


@method(85, 11, SERVER, "")
class ConfirmSelectOk(Fields):
    pass


if TYPE_CHECKING:
    # One statement: the rule would make one for each name.
    # isort: off
    from rabbitry.amqp.protocol._seldom import (
        AccessRequest as AccessRequest,
        AccessRequestOk as AccessRequestOk,
        BasicRecover as BasicRecover,
        BasicRecoverAsync as BasicRecoverAsync,
        BasicRecoverOk as BasicRecoverOk,
        ExchangeBind as ExchangeBind,
        ExchangeBindOk as ExchangeBindOk,
        ExchangeDelete as ExchangeDelete,
        ExchangeDeleteOk as ExchangeDeleteOk,
        ExchangeUnbind as ExchangeUnbind,
        ExchangeUnbindOk as ExchangeUnbindOk,
        QueueDelete as QueueDelete,
        QueueDeleteOk as QueueDeleteOk,
        QueuePurge as QueuePurge,
        QueuePurgeOk as QueuePurgeOk,
        QueueUnbind as QueueUnbind,
        QueueUnbindOk as QueueUnbindOk,
        TxCommit as TxCommit,
        TxCommitOk as TxCommitOk,
        TxRollback as TxRollback,
        TxRollbackOk as TxRollbackOk,
        TxSelect as TxSelect,
        TxSelectOk as TxSelectOk,
    )
    # isort: on

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

    def __getattr__(name):
        if name.startswith("__"):  # an import asks for `__path__`
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rabbitry.amqp.protocol import _seldom

        return getattr(_seldom, name)


def method_name(class_id: int, method_id: int) -> str:
    """Return a method's name as the specification writes it, such as `queue.declare`, or its numbers."""
    layout = BY_SIGNATURE.get(class_id << 16 | method_id)
    if layout is None:
        return f"{class_id}.{method_id}"
    name: str = layout.make.__name__
    cut = next(i for i, letter in enumerate(name) if i and letter.isupper())
    words = "".join("-" + letter.lower() if letter.isupper() else letter for letter in name[cut:])
    return f"{name[:cut].lower()}.{words[1:]}"
