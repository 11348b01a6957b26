"""The embedded broker: RabbitMQ 3.10.8's behaviour in one Python process.

Public modules: `broker`, `config` and `exceptions`; `access` (users and permissions), `definitions` (importing them),
`message` and `reading` (why reading a client is paused) for programs that embed a broker; `rescue` for its data folder.

Where RabbitMQ 4.x differs from 3.10.8, this broker behaves like 3.10.8:

| subject | here | 4.x |
|---|---|---|
| queues neither durable nor exclusive | allowed | deprecated; refused from 4.3 on |
| `basic.qos` with `global` | for the channel | deprecated |
| delivery limit of quorum queues | none by default | 20 |
| `x-death` sent by a client | read and counted on | ignored |
| priorities in quorum queues | none for messages | two levels |
| `x-queue-mode: lazy`, mirroring by policy | accepted | removed |
| messages larger than 16 MiB | accepted up to 128 MiB | refused unless configured |
| a consumer that acknowledges too late | no timeout | 406; from 4.3 on its consumer is cancelled |
"""

from __future__ import annotations

from rabbitry.broker.broker import Broker
from rabbitry.broker.config import BrokerConfig
from rabbitry.broker.exceptions import ManagementFailed, StoreFailed

__all__ = ["Broker", "BrokerConfig", "ManagementFailed", "StoreFailed"]
