"""Child processes that are kept running, and ended at awkward moments."""

import asyncio
import logging

import pytest

from rabbitry.cli._children import Child
from tests.support.waiting import eventually


async def test_a_child_that_is_ended_while_it_waits_to_be_started_again_stays_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    child = Child("broker", ["broker", "--memory", "--port", "0", "--no-management"], {}, ())
    with caplog.at_level(logging.WARNING, "rabbitry.cli.up"):
        keeping = asyncio.create_task(child.keep())
        await eventually(lambda: child._process is not None, "the child to be started", within=20)
        first = child._process
        assert first is not None
        first.kill()
        await eventually(lambda: "started again in" in caplog.text, "its end to be noticed", within=20)
        await child.end()
        assert await asyncio.wait_for(keeping, 20) == 0
    assert child._process is first
    assert first.returncode == -9


async def test_a_child_that_is_ended_while_it_is_being_started_ends() -> None:
    child = Child("broker", ["broker", "--memory", "--port", "0", "--no-management"], {}, ())
    keeping = asyncio.create_task(child.keep())
    await asyncio.sleep(0)  # it has asked for the process, and has none yet
    await child.end()
    await asyncio.wait_for(keeping, 20)
    process = child._process
    assert process is not None, "the test ended it too early"
    assert process.returncode is not None
