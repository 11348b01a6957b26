"""The public names, word for word, and that importing Rabbitry costs next to nothing."""

import importlib
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
from typing import Final

import pytest

import rabbitry
import rabbitry.apps.monitor.publisher
import rabbitry.testing
import rabbitry.web

_NAMES = {
    "AlreadySettled", "App", "AppError", "Batch", "CallCancelled", "CallFailed", "CallTimeout",
    "ChannelClosed", "ConnectFailed", "ConnectionClosed",
    "ConsumerCancelled", "Context", "DeliveryTimeout", "DependencyFailed", "Depends", "Key", "LoginRefused", "Message",
    "Outgoing", "Properties", "ProtocolViolation",
    "PublishError", "PublishRefused", "PublishReturned", "PublishTimeout", "Reject", "RequestTimeout", "Retry",
    "StoreError", "Tick", "TopologyMismatch", "UsageError",
    "UsedAfterFork", "VirtualHostRefused", "RabbitryError", "connect", "connect_blocking",
    "BlockingChannel", "BlockingConnection", "BlockingConsumer", "BlockingDelivery", "BrokerURL", "Channel",
    "Connection", "Consumer", "Delivery", "QueueInfo", "RecoveryEvent",
    "BlockingConsumers", "BlockingReceipt", "BlockingTransaction", "Consumers", "Receipt", "Transaction",
}  # fmt: skip

_PACKAGES: Final[dict[str, tuple[set[str], set[str]]]] = {
    "apps": (
        {
            "AppRole", "Checks", "Finding", "Metric", "Panel", "Plugin", "Role", "Service", "Services", "Site", "Trial",
            "Untaken", "Up", "User", "Verdict", "View", "needs", "user_of",
        },
        {
            "api", "crawl", "exceptions", "grading", "installed", "management", "monitor", "passwords", "queue_checks",
            "settings", "users", "users_file", "workqueue",
        },
    ),
    "runtime": (
        set(),
        {
            "accepting", "addresses", "backoff", "children", "files", "http", "interrupt", "io_thread", "listening",
            "logging", "loop_watchdog", "options", "output", "parent", "resources", "service", "tasks", "tls",
        },
    ),
    "runtime.http": (set(), {"connections", "guard", "guesses", "origins", "pages", "prometheus", "rates", "serving"}),
    "telemetry": (
        {
            "EXCHANGE", "MASK", "MOST_PASSAGES", "SILENCE", "Collector", "Histogram", "Masking", "Node", "Passage",
            "Report", "ReportKind", "Reporter", "ScheduleState", "Wiring", "collect", "decode_report",
            "quantile", "DeclaredBinding", "DeclaredExchange", "DeclaredQueue", "Declares",
            "Limits",
        },
        set(),
    ),
    "testing": ({"Harness", "Published", "QueueView", "Recording", "RunningBroker", "harness"}, {"plugin"}),
}  # fmt: skip
"""Public names and modules of each package; tests/flow/test_exports.py has those of flow."""
_INTERNAL: Final = {
    "apps.crawl": set(), "apps.grading": set(), "apps.monitor": set(), "apps.workqueue": set(),
    "cli": {"main"}, "web": {"app"},
}  # fmt: skip
"""Packages whose modules are for Rabbitry alone, and the names of each that are not."""


def test_the_public_names_are_exact() -> None:
    assert set(rabbitry.__all__) == _NAMES
    assert set(dir(rabbitry)) == _NAMES | {"__version__"}
    for name in _NAMES:
        assert getattr(rabbitry, name).__name__ == name


@pytest.mark.parametrize("package", _PACKAGES)
def test_a_package_documents_its_public_names_and_modules(package: str) -> None:
    names, modules = _PACKAGES[package]
    module = importlib.import_module(f"rabbitry.{package}")
    assert set(getattr(module, "__all__", ())) == names
    assert names <= set(dir(module))
    assert {item.name for item in pkgutil.iter_modules(module.__path__) if not item.name.startswith("_")} == modules
    assert [name for name in modules if f"`{name}`" not in (module.__doc__ or "")] == []


@pytest.mark.parametrize("package", _INTERNAL)
def test_an_internal_package_documents_what_is_public(package: str) -> None:
    module = importlib.import_module(f"rabbitry.{package}")
    assert set(getattr(module, "__all__", ())) == _INTERNAL[package]
    assert "for rabbitry alone" in " ".join((module.__doc__ or "").lower().split())


@pytest.mark.parametrize("name", sorted(_NAMES))
def test_help_describes_every_name(name: str) -> None:
    value = getattr(rabbitry, name)
    assert (value.__doc__ or "").strip()
    assert name in pydoc.plain(pydoc.render_doc(value))


@pytest.mark.parametrize("name", ["App", "Channel", "Connection", "Delivery"])
def test_help_describes_each_member_in_public_names(name: str) -> None:
    value = getattr(rabbitry, name)
    members = {member: getattr(value, member) for member in dir(value) if not member.startswith("_")}
    assert [member for member, found in members.items() if not inspect.getdoc(found)] == []
    signatures = re.findall(r"^ \|  (?:async )?[a-z].*\(self.*", pydoc.plain(pydoc.render_doc(value)), re.MULTILINE)
    assert signatures
    assert [line for line in signatures if re.search(r"\b_[A-Z]", line)] == [], "a private type in a signature"


def test_other_names_are_an_attribute_error_which_type_checkers_see_too() -> None:
    # mypy warns of an ignore that nothing needs, so each of these lines holds a lazily importing module to its names.
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rabbitry.nonsense  # type: ignore[attr-defined] # the name is wrong on purpose
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rabbitry.testing.nonsense  # type: ignore[attr-defined] # the name is wrong on purpose
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rabbitry.web.nonsense  # type: ignore[attr-defined] # the name is wrong on purpose
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rabbitry.apps.monitor.publisher.nonsense  # type: ignore[attr-defined] # the name is wrong on purpose


def test_importing_it_imports_no_asyncio() -> None:
    code = "import sys, rabbitry; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
