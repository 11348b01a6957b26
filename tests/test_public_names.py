"""The public names, word for word, and that importing Rabbitry costs next to nothing."""

import pydoc
import subprocess
import sys

import pytest

import rabbitry
import rabbitry.apps.monitor.publisher
import rabbitry.testing
import rabbitry.web

_NAMES = {
    "AlreadySettled", "App", "AppError", "Batch", "ChannelClosed", "ConnectFailed", "ConnectionClosed",
    "ConsumerCancelled", "DeliveryTimeout", "LoginRefused", "Message", "Outgoing", "Properties", "ProtocolViolation",
    "PublishError", "PublishRefused", "PublishReturned", "PublishTimeout", "Reject", "RequestTimeout", "Retry",
    "TopologyMismatch", "UsageError",
    "UsedAfterFork", "VirtualHostRefused", "RabbitryError", "connect", "connect_blocking",
    "BlockingChannel", "BlockingConnection", "BlockingConsumer", "BlockingDelivery", "BrokerURL", "Channel",
    "Connection", "Consumer", "Delivery", "QueueInfo", "RecoveryEvent",
}  # fmt: skip


def test_the_names_are_these() -> None:
    assert set(rabbitry.__all__) == _NAMES
    assert set(dir(rabbitry)) == _NAMES | {"__version__"}
    for name in _NAMES:
        assert getattr(rabbitry, name).__name__ == name


@pytest.mark.parametrize("name", sorted(_NAMES))
def test_help_describes_every_name(name: str) -> None:
    value = getattr(rabbitry, name)
    assert (value.__doc__ or "").strip()
    assert name in pydoc.plain(pydoc.render_doc(value))


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
