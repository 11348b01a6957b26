"""The client for scripts: the same names without `await`, safe to use from many threads.

Modules: `connection`, `channel` and `consuming`, as in the asyncio client, and `receipts`.

All of it runs in one I/O thread. A call that waits for an answer (declaring, `publish`, `get`) takes one iteration of
that thread's loop; `send`, `ack` and the next delivery are handed over in batches (`benchmarks/blocking.py`).
"""

from __future__ import annotations

from rabbitry.amqp.client.blocking.channel import BlockingChannel, BlockingTransaction
from rabbitry.amqp.client.blocking.connection import BlockingConnection, connect_blocking
from rabbitry.amqp.client.blocking.consuming import BlockingConsumer, BlockingConsumers, BlockingDelivery
from rabbitry.amqp.client.blocking.receipts import BlockingReceipt

__all__ = [
    "BlockingChannel",
    "BlockingConnection",
    "BlockingConsumer",
    "BlockingConsumers",
    "BlockingDelivery",
    "BlockingReceipt",
    "BlockingTransaction",
    "connect_blocking",
]
