"""Pausing the reading of a client: the gate, its reasons, and its state in the management API."""

import asyncio
import itertools

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.reading import ReadingGate, Reason
from tests.support.waiting import eventually


class _Socket:
    def __init__(self) -> None:
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


@pytest.mark.parametrize("order", [*itertools.permutations((Reason.FLOW, Reason.MEMORY, Reason.COMMIT))])
def test_a_client_is_read_again_when_the_last_reason_is_gone(order: tuple[Reason, ...]) -> None:
    socket = _Socket()
    gate = ReadingGate(socket)
    for reason in Reason:
        if reason in order:
            gate.pause(reason)
    for count, reason in enumerate(order):
        gate.resume(reason)
        gate.resume(reason)
        assert socket.is_read == (count == len(order) - 1)


def test_resuming_without_a_pause_changes_nothing() -> None:
    socket = _Socket()
    gate = ReadingGate(socket)
    gate.pause()
    gate.resume(Reason.DISK)
    gate.resume_frames()
    assert socket.is_read
    assert gate.state == "running"


def test_frames_that_are_held_are_resumed_together_and_leave_the_other_reasons() -> None:
    socket = _Socket()
    gate = ReadingGate(socket)
    gate.pause(Reason.COMMIT, Reason.TURN, Reason.LOADING, Reason.UNREAD, Reason.FLOW)
    gate.resume_frames()
    assert gate.reasons == {Reason.FLOW}
    assert not socket.is_read


@pytest.mark.parametrize(
    ("reasons", "state"),
    [
        ((), "running"),
        ((Reason.TURN, Reason.UNREAD), "running"),
        ((Reason.FLOW,), "flow"),
        ((Reason.FLOW, Reason.DISK), "blocked"),
        ((Reason.MEMORY,), "blocked"),
    ],
)
def test_the_state_of_a_connection_is_in_rabbitmqs_words(reasons: tuple[Reason, ...], state: str) -> None:
    gate = ReadingGate(_Socket())
    gate.pause(*reasons)
    assert gate.state == state


@pytest.mark.parametrize("last", [Reason.MEMORY, Reason.DISK])
async def test_two_alarms_block_a_client_once_until_both_end(last: Reason) -> None:
    first = Reason.DISK if last is Reason.MEMORY else Reason.MEMORY
    told: list[str | None] = []
    async with Broker(BrokerConfig(port=0)) as broker:
        await broker.alarms.stop()  # it would look at the memory that there is
        async with rabbitry.connect(broker.url, on_blocked=told.append) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q")
            (served,) = broker.connections
            broker.alarms.set(first, is_on=True)
            await channel.send(b"1", routing_key="q")
            await eventually(lambda: told == [f"low on {first}"], "connection.blocked")
            broker.alarms.set(last, is_on=True)
            assert served.gate.reasons == {first, last, Reason.ALARM}
            late = asyncio.create_task(channel.publish(b"2", routing_key="q"))  # the client waits, too
            broker.alarms.set(first, is_on=False)
            assert served.gate.state == "blocked"
            assert not late.done()
            broker.alarms.set(last, is_on=False)
            await late
            await eventually(lambda: told == [f"low on {first}", None], "connection.unblocked")
            assert served.gate.state == "running"
