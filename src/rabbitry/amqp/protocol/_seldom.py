"""The methods of AMQP 0-9-1 that few clients send. methods.py loads them when one of their names is first used.

A third of all methods is here. Creating their classes took 6 % of the import of the client (benchmarks/importing.py).
"""

from __future__ import annotations

from rabbitry._fields import Fields
from rabbitry.amqp.protocol.layouts import CLIENT, NO_ARGUMENTS, SERVER, method
from rabbitry.amqp.protocol.tables import Table


@method(30, 10, CLIENT, "sbbbbb")
class AccessRequest(Fields):
    realm: str = ""
    exclusive: bool = False
    passive: bool = False
    active: bool = False
    write: bool = False
    read: bool = False


@method(30, 11, SERVER, "h")
class AccessRequestOk(Fields):
    ticket: int = 1


@method(40, 20, CLIENT, "0sbb")
class ExchangeDelete(Fields):
    exchange: str = ""
    if_unused: bool = False
    nowait: bool = False


@method(40, 21, SERVER, "")
class ExchangeDeleteOk(Fields):
    pass


@method(40, 30, CLIENT, "0sssbt")
class ExchangeBind(Fields):
    destination: str = ""
    source: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(40, 31, SERVER, "")
class ExchangeBindOk(Fields):
    pass


@method(40, 40, CLIENT, "0sssbt")
class ExchangeUnbind(Fields):
    destination: str = ""
    source: str = ""
    routing_key: str = ""
    nowait: bool = False
    arguments: Table = NO_ARGUMENTS


@method(40, 51, SERVER, "")
class ExchangeUnbindOk(Fields):
    pass


@method(50, 30, CLIENT, "0sb")
class QueuePurge(Fields):
    queue: str = ""
    nowait: bool = False


@method(50, 31, SERVER, "l")
class QueuePurgeOk(Fields):
    message_count: int = 0


@method(50, 40, CLIENT, "0sbbb")
class QueueDelete(Fields):
    queue: str = ""
    if_unused: bool = False
    if_empty: bool = False
    nowait: bool = False


@method(50, 41, SERVER, "l")
class QueueDeleteOk(Fields):
    message_count: int = 0


@method(50, 50, CLIENT, "0ssst")
class QueueUnbind(Fields):
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    arguments: Table = NO_ARGUMENTS


@method(50, 51, SERVER, "")
class QueueUnbindOk(Fields):
    pass


@method(60, 100, CLIENT, "b")
class BasicRecoverAsync(Fields):
    requeue: bool = False


@method(60, 110, CLIENT, "b")
class BasicRecover(Fields):
    requeue: bool = False


@method(60, 111, SERVER, "")
class BasicRecoverOk(Fields):
    pass


@method(90, 10, CLIENT, "")
class TxSelect(Fields):
    pass


@method(90, 11, SERVER, "")
class TxSelectOk(Fields):
    pass


@method(90, 20, CLIENT, "")
class TxCommit(Fields):
    pass


@method(90, 21, SERVER, "")
class TxCommitOk(Fields):
    pass


@method(90, 30, CLIENT, "")
class TxRollback(Fields):
    pass


@method(90, 31, SERVER, "")
class TxRollbackOk(Fields):
    pass
