"""What the product logged, without the lines of others: asyncio in debug mode tells of each turn on a busy machine."""

import logging

import pytest


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of Rabbitry's own loggers."""
    return [record for record in caplog.records if record.name.partition(".")[0] == "rabbitry"]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of Rabbitry's own loggers."""
    return [record.getMessage() for record in records(caplog)]
