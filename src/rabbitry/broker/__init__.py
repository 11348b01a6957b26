"""The embedded broker: RabbitMQ's behaviour in one Python process, that of 3.10.8 or of 4.0.5.

Public modules: `broker`, `compat` (the differences between the releases of RabbitMQ), `config` and `exceptions`;
`access` (users and permissions), `definitions` (importing them), `message` and `reading` (why reading a client is
paused) for programs that embed a broker; `rescue` for its data folder.
"""

from __future__ import annotations

from rabbitry.broker.broker import Broker
from rabbitry.broker.config import BrokerConfig
from rabbitry.broker.exceptions import ManagementFailed, StoreFailed

__all__ = ["Broker", "BrokerConfig", "ManagementFailed", "StoreFailed"]
