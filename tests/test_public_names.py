"""The public names, word for word, and that importing Warren costs next to nothing."""

import subprocess
import sys

import pytest

import warren
from warren import exceptions

_NAMES = {
    "AlreadySettled", "ChannelClosed", "ConnectFailed", "ConnectionClosed", "ConsumerCancelled", "LoginRefused",
    "Properties", "ProtocolViolation", "PublishError", "PublishRefused", "PublishReturned", "PublishTimeout",
    "RequestTimeout", "UsageError", "VirtualHostRefused", "WarrenError", "connect",
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


def test_each_reply_code_has_one_class() -> None:
    for registry in (exceptions.CONNECTION_ERRORS, exceptions.CHANNEL_ERRORS):
        assert len(set(registry.values())) == len(registry)
    with pytest.raises(TypeError, match="404"):
        exceptions._register(exceptions.CHANNEL_ERRORS, 404)(exceptions.ChannelClosed)


def test_a_fresh_error_keeps_words_and_cause() -> None:
    error = exceptions.channel_closed(404, "NOT_FOUND - no queue 'q'", 50, 10)
    error.__cause__ = OSError("why")
    again = error.fresh()
    assert again is not error
    assert isinstance(again, exceptions.NotFound)
    assert (str(again), again.method_id, again.__cause__) == (str(error), 10, error.__cause__)
    assert exceptions.connection_closed(999, "x", 0, 0).reply_code == 999
