"""Whether a client may do what it asks for; the texts are RabbitMQ 3.10's (docs/access-control)."""

from typing import TYPE_CHECKING, Literal

from warren.amqp.protocol.tables import FieldValue
from warren.broker.errors import access_refused
from warren.broker.users import Operation

if TYPE_CHECKING:
    from warren.broker.connection import ClientConnection


def check(client: "ClientConnection", operation: Operation, kind: Literal["queue", "exchange"], name: str) -> None:
    """Refuse (403) what the client's user may not do to a queue or exchange of its virtual host."""
    if kind == "exchange" and not name:
        name = "amq.default"
    vhost = client.vhost.name
    if not client.broker.users.allows(client.user, vhost, operation, name):
        raise access_refused(f"access to {kind} '{name}' in vhost '{vhost}' refused for user '{client.user}'")


def check_target(client: "ClientConnection", kind: Literal["queue", "exchange"], name: str, target: FieldValue) -> None:
    """Refuse (403) to make a queue or exchange that passes messages on to `target`: read on it, write on the target.

    target: the value of its x-dead-letter-exchange or alternate-exchange argument; nothing where it has none.
    """
    if isinstance(target, str):
        check(client, "read", kind, name)
        check(client, "write", "exchange", target)
