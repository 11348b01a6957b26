"""Fixtures of the crawl tests: brokers that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def shared_broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty virtual host that the tests of a module share."""
    if request.param == "embedded":
        with BrokerProcess() as broker:
            yield broker.url
    else:
        server: RabbitMQ = request.getfixturevalue("rabbitmq_server")
        name = f"test-{request.node.name}"
        yield server.add_vhost(name)
        server.delete_vhost(name)
