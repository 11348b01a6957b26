"""The public names and modules of rabbitry.flow, word for word."""

import importlib
import pkgutil

import pytest

import rabbitry
import rabbitry.flow
import rabbitry.flow.wiring
import rabbitry.flow.worker

_MODULES = {
    "rabbitry.flow": {
        "app", "batch", "blocking", "codec", "context", "depends", "exceptions", "joining", "key", "message",
        "middleware", "once", "outgoing", "publisher", "schedule", "schemas", "spec", "stage", "timing", "wiring",
        "worker",
    },
    "rabbitry.flow.wiring": {
        "cancelling", "dead_letters", "declarer", "delays", "keys", "moving", "pausing", "rates", "replacer",
        "replacing", "retries", "schedules", "slots", "tokens", "topology",
    },
    "rabbitry.flow.worker": set(),
}  # fmt: skip


def test_the_public_names_are_exact() -> None:
    assert set(rabbitry.flow.__all__) == {"App", "Batch", "Context", "Depends", "Key", "Message", "Outgoing", "Tick"}
    assert set(rabbitry.flow.worker.__all__) == {"Result", "Work", "Worker"}
    for name in rabbitry.flow.__all__:
        assert getattr(rabbitry.flow, name) is getattr(rabbitry, name)


@pytest.mark.parametrize("package", _MODULES)
def test_the_public_modules_are_exact_and_named_by_the_package(package: str) -> None:
    module = importlib.import_module(package)
    found = {item.name for item in pkgutil.iter_modules(module.__path__) if not item.name.startswith("_")}
    assert found == _MODULES[package]
    assert all(f"`{name}`" in (module.__doc__ or "") for name in found)


def test_an_app_shows_its_users_what_users_call() -> None:
    shown = {name for name in dir(rabbitry.App("shown")) if not name.startswith("_")}
    assert shown == {
        "auto_delete", "cancellable", "cron", "every", "exchange", "exchange_type", "join", "key", "lifespan",
        "middleware", "name", "output", "outputs", "plain", "publish", "publish_blocking", "publisher",
        "publisher_blocking", "queue_type", "spec", "stage", "stages", "store", "validate", "window",
        "worker", "workers",
    }  # fmt: skip
