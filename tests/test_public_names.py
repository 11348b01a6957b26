"""The public names, word for word, and that importing Warren costs next to nothing."""

import subprocess
import sys

import pytest

import warren

_NAMES = {
    "AlreadySettled", "App", "AppError", "ChannelClosed", "ConnectFailed", "ConnectionClosed", "ConsumerCancelled",
    "DeliveryTimeout", "LoginRefused", "Message", "Properties", "ProtocolViolation", "PublishError", "PublishRefused",
    "PublishReturned", "PublishTimeout", "Reject", "RequestTimeout", "Retry", "TopologyMismatch", "UsageError",
    "UsedAfterFork", "VirtualHostRefused", "WarrenError", "connect", "connect_blocking",
}  # fmt: skip


def test_the_names_are_these() -> None:
    assert set(warren.__all__) == _NAMES
    assert set(dir(warren)) == _NAMES | {"__version__"}
    for name in _NAMES:
        assert getattr(warren, name).__name__ == name


def test_other_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = warren.nonsense


def test_importing_it_imports_no_asyncio() -> None:
    code = "import sys, warren; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
