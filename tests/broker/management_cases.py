"""What the management API shows, with the values of RabbitMQ 3.10.8; test_management.py tries it on both brokers."""

import asyncio
import contextlib
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pika
from pika.exceptions import UnroutableError

from tests.support.management import Api

_VHOST: Final = "counting"
_IDLE: Final = dict.fromkeys(
    ("deliver", "deliver_no_ack", "deliver_get", "get", "get_no_ack", "get_empty", "ack", "redeliver"), 0
)
COUNTED: Final[dict[str, object]] = {
    f"queues/{_VHOST}/both": {"publish": 8}
    | _IDLE
    | {"deliver": 3, "deliver_get": 6, "get": 3, "ack": 2, "redeliver": 1},
    f"queues/{_VHOST}/plain": {"publish": 5} | _IDLE | {"deliver_no_ack": 4, "deliver_get": 5, "get_no_ack": 1},
    f"queues/{_VHOST}/empty": _IDLE | {"get_empty": 2},
    f"queues/{_VHOST}/expiring": {"publish": 1},
    f"queues/{_VHOST}/untouched": None,
    f"queues/{_VHOST}/dead": None,
    f"exchanges/{_VHOST}/first": {"publish_in": 5, "publish_out": 10},
    f"exchanges/{_VHOST}/second": None,
    f"exchanges/{_VHOST}/amq.default": {"publish_in": 7, "publish_out": 7},
    "channels/1": {"publish": 12, "confirm": 12, "return_unroutable": 1, "drop_unroutable": 2}
    | _IDLE
    | {"deliver_get": 4, "get": 3, "get_no_ack": 1, "get_empty": 2, "ack": 2, "redeliver": 1},
    "channels/2": _IDLE | {"deliver": 3, "deliver_no_ack": 4, "deliver_get": 7},
    f"vhosts/{_VHOST}": {"publish": 12, "confirm": 12, "return_unroutable": 1, "drop_unroutable": 2}
    | _IDLE
    | {"deliver": 3, "deliver_no_ack": 4, "deliver_get": 11, "get": 3, "get_no_ack": 1, "get_empty": 2}
    | {"ack": 2, "redeliver": 1},
}  # fmt: skip
"""Path below /api/ → message_stats without rates; None where there are none. A channel's path is its number."""


class Counting:
    """Everything that is counted, done once in a virtual host of its own. All but `is_counted` blocks."""

    def __init__(self, api: Api, url: str) -> None:
        self._api = api
        assert api("PUT", f"/api/vhosts/{_VHOST}", {})[0] == 201
        address = urlsplit(url)
        parameters = pika.ConnectionParameters("127.0.0.1", address.port, _VHOST)
        self._connection = pika.BlockingConnection(parameters)
        self._do_everything()

    def _do_everything(self) -> None:
        channel = self._connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("first", "fanout")
        channel.exchange_declare("second", "topic")
        channel.exchange_bind("second", "first")
        channel.queue_declare("dead")
        channel.queue_declare("expiring", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        for name in ("both", "empty", "untouched", "plain"):
            channel.queue_declare(name)
        channel.queue_bind("both", "first")
        channel.queue_bind("plain", "second", "#")
        for _ in range(5):
            channel.basic_publish("first", "", b"x")
        for _ in range(3):
            channel.basic_publish("", "both", b"y", pika.BasicProperties(delivery_mode=2))
        channel.basic_publish("", "expiring", b"y", pika.BasicProperties(expiration="0"))
        with contextlib.suppress(UnroutableError):
            channel.basic_publish("", "nowhere", b"", mandatory=True)
        for _ in range(2):
            channel.basic_publish("", "nowhere", b"")
        self._get(channel)
        consuming = self._connection.channel()
        consuming.basic_qos(prefetch_count=3)
        consuming.basic_consume("both", lambda *delivery: None)
        consuming.basic_consume("plain", lambda *delivery: None, auto_ack=True)
        self._connection.process_data_events(0)

    @staticmethod
    def _get(channel: Any) -> None:
        for settle in (channel.basic_ack, channel.basic_nack, channel.basic_ack):
            settle(channel.basic_get("both")[0].delivery_tag)
        channel.basic_get("plain", auto_ack=True)
        channel.basic_get("empty")
        channel.basic_get("empty", auto_ack=True)

    async def is_counted(self, path: str, expected: object) -> bool:
        """Whether what a path shows has these counters; RabbitMQ shows them some seconds later."""
        return await asyncio.to_thread(self._counters, path) == expected

    def _counters(self, path: str) -> object:
        kind, _, name = path.partition("/")
        if kind == "channels":
            shown = self._api("GET", f"/api/vhosts/{_VHOST}/channels")[1]
            name = next((quote(item["name"], safe="") for item in shown if str(item["number"]) == name), "missing")
        stats = self._api("GET", f"/api/{kind}/{name}")[1].get("message_stats")
        return stats and {name: value for name, value in stats.items() if not name.endswith("_details")}

    def close(self) -> None:
        """Close the connection, and delete the virtual host."""
        self._connection.close()
        self._api("DELETE", f"/api/vhosts/{_VHOST}")
