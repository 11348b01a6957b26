"""AMQP 0-8 as RabbitMQ 3.10.8 speaks it: the methods that it lacks, and those encoded differently from 0-9-1.

Clients written before 2010 speak it, among them py-amqplib. Contents, properties and field tables are those of 0-9-1;
RabbitMQ sends an empty table of server capabilities, because these clients can't read booleans in tables.
(RabbitMQ's amqp-rabbitmq-0.8.json; recorded conversations with RabbitMQ 3.10.8 in tests/data.)
"""

from __future__ import annotations

from typing import Final

from rabbitry.amqp.protocol.layouts import BY_TYPE, Layout
from rabbitry.amqp.protocol.methods import (
    BasicConsume,
    BasicNack,
    ChannelOpenOk,
    ConfirmSelect,
    ConfirmSelectOk,
    ConnectionBlocked,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionUnblocked,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    ExchangeBind,
    ExchangeBindOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
)

VERSION: Final = (8, 0)
"""The version in connection.start, as the specification of 0-8 defines it."""

_MISSING: Final = frozenset(
    {
        BasicNack,
        ConfirmSelect,
        ConfirmSelectOk,
        ConnectionBlocked,
        ConnectionUnblocked,
        ConnectionUpdateSecret,
        ConnectionUpdateSecretOk,
        ExchangeBind,
        ExchangeBindOk,
        ExchangeUnbind,
        ExchangeUnbindOk,
    }
)


def _changed() -> dict[type, Layout]:
    close, close_ok = BY_TYPE[ConnectionClose], BY_TYPE[ConnectionCloseOk]
    consume, open_ok = BY_TYPE[BasicConsume], BY_TYPE[ChannelOpenOk]
    return {
        ConnectionClose: close._replace(method_id=60),  # 50 and 51 were connection.redirect, which RabbitMQ lacks
        ConnectionCloseOk: close_ok._replace(method_id=61),
        ChannelOpenOk: open_ok._replace(letters=""),  # without a channel id
        BasicConsume: consume._replace(letters=consume.letters.removesuffix("t")),  # without arguments
    }


LAYOUTS_BY_TYPE: Final = {kind: layout for kind, layout in BY_TYPE.items() if kind not in _MISSING} | _changed()
LAYOUTS_BY_SIGNATURE: Final = {layout.signature: layout for layout in LAYOUTS_BY_TYPE.values()}
