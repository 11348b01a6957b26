"""The public names of rabbitry.broker, word for word."""

import importlib

import rabbitry.broker

_HOMES = {
    "Broker": "rabbitry.broker.broker",
    "BrokerConfig": "rabbitry.broker.config",
    "ManagementFailed": "rabbitry.broker.exceptions",
    "StoreFailed": "rabbitry.broker.exceptions",
}


def test_the_names_are_these() -> None:
    assert set(rabbitry.broker.__all__) == set(_HOMES)
    for name, home in _HOMES.items():
        assert getattr(rabbitry.broker, name) is getattr(importlib.import_module(home), name)
