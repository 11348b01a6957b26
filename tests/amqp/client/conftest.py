"""Fixtures for the client's tests: a broker behind a proxy that breaks connections."""

from collections.abc import AsyncIterator

import pytest

from rabbitry.amqp.client import BrokerURL, parse_url
from tests.support.proxy import FaultProxy


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        yield proxy


@pytest.fixture
def url(broker_url: str, proxy: FaultProxy) -> BrokerURL:
    """The broker behind the proxy."""
    return parse_url(broker_url)._replace(hosts=(("127.0.0.1", proxy.port),))
