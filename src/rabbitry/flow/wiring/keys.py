"""Limits for each key on the broker: a key that is in use has a queue for its rate, and one for each call at once.

Each queue has a single active consumer. The worker that receives the message from it, the token, has a lease: it alone
begins messages of the key, or runs one call of it, until it closes its channel. When a worker is killed, the broker
closes its connection, and the next worker that waits has the token, without a timeout and without anybody deciding
that the first one is dead. The token of a rate says up to which moment tokens of time were used. The holder publishes
the next one and acknowledges the last one in a transaction before it begins a message: a worker that is killed in
between has used a token for nothing, and no message begins without one.

A queue is made when the first message of its key waits, and deleted by the broker when it was not used for a while: by
then the key may begin as many messages at once as one that was never seen. Neither the broker nor a worker therefore
keeps anything of keys that are not in use. The keys are hashed, since they may be of any length and are no business of
those who list queues.

All are classic queues, also in an app of quorum queues. A quorum queue costs a Raft group, which is for messages that
must not be lost, and no queue is made for it as fast as keys come: of two workers that declare one at the same time,
RabbitMQ 3.10 closes the connection of one (541). In a cluster, keys whose queues are on a node that is down wait.

Considered instead: a fixed number of queues, each of whose active worker grants permissions for the keys that are
hashed to it. Each message would cost a request and a grant, and a worker that takes over would have to find out which
grants its predecessor gave, and which of their holders live, before it may give one. Here the broker knows both.
"""

from __future__ import annotations

import hashlib
from typing import Final

from rabbitry.flow.stage import Argument

_UNUSED: Final = 90_000
"""Milliseconds after which an unused queue is deleted: more than the minute in which the slowest rate has one message
more, so that what the queue says makes no difference any more. The same for all, so that a version of the app with
another rate declares the same queues."""
_DIGEST: Final = 12
"""Bytes of a key's hash: that any two of a billion keys have the same one has a chance of less than 1 in 10^11."""


def hashed(key: str) -> str:
    """Return what stands for a key in the names of its queues."""
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=_DIGEST).hexdigest()


def key_rate_queue(app: str, stage: str, key: str) -> str:
    """Return the name of the queue that holds the state of a key's rate. key: hashed."""
    return f"{app}.key.{stage}.{key}.rate"


def key_slot_queue(app: str, stage: str, key: str, place: int) -> str:
    """Return the name of the queue of one of a key's slots. key: hashed. place: the slot's number, 1 for the first."""
    return f"{app}.key.{stage}.{key}.{place}"


def key_rate_arguments() -> dict[str, Argument]:
    """Return the arguments of the queue of a key's rate."""
    return {"x-queue-type": "classic", "x-single-active-consumer": True, "x-expires": _UNUSED}


def key_slot_arguments() -> dict[str, Argument]:
    """Return the arguments of the queue of a slot."""
    return {**key_rate_arguments(), "x-max-length": 1}
