"""Asking the broker whether it still answers over the connection that messages come over."""

import pytest

from rabbitry import App
from rabbitry.amqp.client import parse_url
from rabbitry.exceptions import RequestTimeout, UsageError
from tests.support.proxy import FaultProxy, Way


@pytest.mark.parametrize("way", Way)
async def test_a_silent_broker_and_its_later_answer_are_noticed(broker_url: str, way: Way) -> None:
    app = App("pinged")

    @app.stage("given")
    async def take(number: int) -> None:
        raise AssertionError("nothing is published")

    port = parse_url(broker_url).hosts[0][1]
    async with FaultProxy(port) as proxy:
        worker = app.worker(broker_url.replace(f":{port}/", f":{proxy.port}/"))
        with pytest.raises(UsageError):
            await worker.ping(1.0)
        async with worker:
            await worker.ping(30.0)
            proxy.pause(way)
            with pytest.raises(RequestTimeout):
                await worker.ping(0.1)
            proxy.resume(way)
            await worker.ping(30.0)
