"""The client for scripts: the same names without `await`, safe to use from many threads.

Modules: `connection`, `channel` and `consuming`, as in the asyncio client, and `receipts`.

All of it runs on one I/O thread. What waits for an answer (declaring, `publish`, `get`) costs a turn of that
thread; what does not (`send`, `ack`, the next delivery) is handed over in batches (`benchmarks/blocking.py`).
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
