"""Readings of this machine, and the samples that two of them make."""

import asyncio
import threading
from datetime import datetime

import msgspec
import pytest

from rabbitry.apps.monitor import sampling
from rabbitry.apps.monitor.decode import decode, utilization
from rabbitry.apps.monitor.sample import Memory, Net, Sample, Space
from rabbitry.apps.monitor.sampling import MeasuringHangs, Meter, Reading, sample
from tests.support.waiting import eventually

GIB = 2**30


def reading(
    at: float,
    *,
    cores: list[tuple[float, float]] | None = None,
    net: dict[str, tuple[int, int]] | None = None,
    disks: dict[str, tuple[int, int]] | None = None,
) -> Reading:
    return Reading(
        at=at,
        cores=cores or [],
        net=net or {},
        disks=disks or {},
        memory=Memory(4 * GIB, 3 * GIB, GIB, 25.0),
        swap=Space(0, 0, 0, 0.0),
        disk=Space(10, 4, 6, 40.0),
        load=[0.1, 0.2, 0.3],
        temperatures={},
        uptime=1000,
        processes=7,
    )


async def test_this_machine_gives_a_sample_of_both_contracts() -> None:
    meter = Meter()
    before = await meter.read()
    await asyncio.sleep(0.05)
    made = sample(before, await meter.read())
    body = msgspec.json.encode(made)
    found = utilization(decode(body))
    assert found.problems == []
    assert "lo" in found.net
    fields = decode(body)
    assert datetime.fromisoformat(fields["timestamp"]).tzinfo is not None
    assert fields["hostname"]
    assert fields["platform"]
    assert fields["cpu_percent"] == pytest.approx(100 * fields["cpu"], abs=0.01)
    assert set(fields["memory"]) == {"total", "available", "used", "percent"}
    assert set(fields["disk"]) == {"total", "used", "free", "percent"}
    assert set(fields["swap"]) == {"total", "used", "free", "percent"}
    assert fields["memory"]["total"] > 0
    assert fields["processes"] > 1
    assert fields["uptime"] > 0
    assert len(fields["load"]) == 3
    assert all(0 <= core <= 1 for core in fields["cores"])
    assert all(set(rates) == {"read", "write"} for rates in fields["disks"].values())
    assert msgspec.json.decode(body, type=Sample) == made


def test_rates_are_over_the_interval() -> None:
    made = sample(
        reading(10.0, net={"eth0": (1000, 5000)}, disks={"sda": (0, 100)}),
        reading(12.0, net={"eth0": (3000, 5500)}, disks={"sda": (4096, 100)}),
    )
    assert made.net == {"eth0": Net(1000, 250)}
    assert made.disks["sda"].read == 2048
    assert made.disks["sda"].write == 0


def test_cpu_is_the_busy_fraction_of_each_core_and_of_all() -> None:
    made = sample(reading(0, cores=[(10, 100), (0, 100)]), reading(1, cores=[(11, 101), (0, 101)]))
    assert made.cores == [1.0, 0.0]
    assert made.cpu == 0.5
    assert made.cpu_percent == 50.0


def test_counters_of_the_cpu_that_go_backwards_stay_within_a_fraction() -> None:
    made = sample(reading(0, cores=[(10, 100), (10, 100)]), reading(1, cores=[(9, 101), (13, 101)]))
    assert made.cores == [0.0, 1.0]
    assert made.cpu == 0.5


def test_a_core_that_was_unplugged_gives_no_nonsense() -> None:
    made = sample(reading(0, cores=[(10, 100), (10, 100)]), reading(1, cores=[(11, 101)]))
    assert (made.cores, made.cpu) == ([], 0.0)


def test_an_interface_that_appears_or_vanishes_has_no_rate_yet() -> None:
    made = sample(reading(0, net={"eth0": (1, 1), "usb0": (5, 5)}), reading(1, net={"eth0": (2, 2), "wlan0": (9, 9)}))
    assert made.net == {"eth0": Net(1, 1)}


def test_a_counter_that_wraps_at_32_bits_goes_on() -> None:
    made = sample(reading(0, net={"eth0": (2**32 - 100, 0)}), reading(1, net={"eth0": (400, 0)}))
    assert made.net["eth0"].rx == 500


@pytest.mark.parametrize("before", [10**6, 10**12])
def test_a_counter_that_started_anew_counts_from_zero(before: int) -> None:
    made = sample(reading(0, net={"eth0": (before, 0)}), reading(1, net={"eth0": (400, 0)}))
    assert made.net["eth0"].rx == 400


def test_two_readings_at_the_same_moment_make_a_sample() -> None:
    made = sample(reading(5, cores=[(1, 2)], net={"eth0": (1, 1)}), reading(5, cores=[(1, 2)], net={"eth0": (1, 1)}))
    assert (made.cpu, made.net["eth0"].rx) == (0.0, 0)


async def test_a_measurement_that_hangs_is_named_and_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, started = threading.Event(), []

    def hang() -> Reading:
        started.append(threading.get_ident())
        go_on.wait(20)
        return reading(1.0)

    monkeypatch.setattr(sampling, "read", hang)
    meter = Meter(patience=0.05)
    for _ in range(3):
        with pytest.raises(MeasuringHangs, match="hang"):
            await meter.read()
    assert len(started) == 1
    go_on.set()
    await eventually(lambda: threading.active_count() == 1, "the thread of the measurement ended")
    assert (await meter.read()).at == 1.0
    assert len(started) == 1


async def test_an_error_of_the_measurement_reaches_its_caller_and_the_next_one_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Reading:
        raise OSError("no /proc here")

    meter = Meter()
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "read", refuse)
        with pytest.raises(OSError, match="no /proc"):
            await meter.read()
    assert (await meter.read()).processes > 1


async def test_a_cancelled_reader_leaves_the_measurement_to_the_next() -> None:
    meter = Meter()
    cancelled = asyncio.create_task(meter.read())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await meter.read()).processes > 1
