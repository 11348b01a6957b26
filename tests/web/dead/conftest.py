"""The two brokers behind the Dead letters view."""

from collections.abc import Iterator

import pytest

from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.web.serving import System


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """A broker, the same for the tests of a module: each uses an app of its own."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        yield System(server.url, management_url(server), is_rabbitmq=True)
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        yield System(broker.url, f"http://127.0.0.1:{port}", is_rabbitmq=False)
