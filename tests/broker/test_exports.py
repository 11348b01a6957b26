"""The public names and modules of rabbitry.broker, word for word."""

import importlib
import pkgutil

import rabbitry.broker

_HOMES = {
    "Broker": "rabbitry.broker.broker",
    "BrokerConfig": "rabbitry.broker.config",
    "ManagementFailed": "rabbitry.broker.exceptions",
    "StoreFailed": "rabbitry.broker.exceptions",
}

_MODULES = {"access", "broker", "compat", "config", "definitions", "exceptions", "message", "reading", "rescue"}


def test_the_public_names_are_exact() -> None:
    assert set(rabbitry.broker.__all__) == set(_HOMES)
    for name, home in _HOMES.items():
        assert getattr(rabbitry.broker, name) is getattr(importlib.import_module(home), name)


def test_the_public_modules_are_exact_and_named_by_the_package() -> None:
    found = {item.name for item in pkgutil.iter_modules(rabbitry.broker.__path__) if not item.name.startswith("_")}
    assert found == _MODULES
    assert all(f"`{name}`" in (rabbitry.broker.__doc__ or "") for name in found)
