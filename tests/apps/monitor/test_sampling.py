"""Readings of this machine, and samples computed from two of them."""

import asyncio
import threading
from collections import namedtuple
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from rabbitry.apps.monitor import sampling
from rabbitry.apps.monitor.cgroup import Limits
from rabbitry.apps.monitor.decode import decode, utilization
from rabbitry.apps.monitor.filesystems import local_filesystems
from rabbitry.apps.monitor.sample import Container, Memory, Net, Sample, Share, Space
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
    assert fields["disk"]["percent"] == pytest.approx(100 * fields["disk"]["used"] / fields["disk"]["total"], abs=0.1)
    used, total = fields["memory"]["used"], fields["memory"]["total"]
    assert fields["memory"]["percent"] == pytest.approx(100 * used / total, abs=0.1)
    assert set(fields["uplinks"]) <= set(fields["net"])
    assert len(fields["machine"]) in (0, 16)
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


def test_blocks_that_are_reserved_for_root_are_no_part_of_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free percent")
    monkeypatch.setattr("psutil.disk_usage", lambda _: usage(1000, 500, 450, 52.6))
    disk = sampling.read().disk
    assert (disk.used, disk.free, disk.total, disk.percent) == (500, 450, 950, 52.6)
    monkeypatch.setattr("psutil.disk_usage", lambda _: usage(1000, 950, 0, 100.0))
    assert sampling.read().disk.percent == 100.0


def test_file_systems_count_once_and_images_and_layers_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data/bound").mkdir(parents=True)
    (tmp_path / "hosts").touch()
    mounted = [
        ("/dev/sda1", tmp_path / "data/bound", "ext4"), ("/dev/sda1", tmp_path / "data", "ext4"),
        ("/dev/loop3", tmp_path, "squashfs"), ("/dev/sdb1", tmp_path / "hosts", "ext4"),
        ("tank/x", "/var/lib/docker/zfs/1", "zfs"), ("/dev/sdc1", tmp_path / "gone", "xfs"),
    ]  # fmt: skip
    partition = namedtuple("partition", "device mountpoint fstype")
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [partition(d, str(p), kind) for d, p, kind in mounted])
    assert list(local_filesystems()) == [str(tmp_path / "data")]


def test_sensors_with_equal_labels_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = namedtuple("sensor", "label current")
    found = {
        "coretemp": [sensor("Core 0", 41.0), sensor("Core 0", 95.0), sensor("Core 0 #2", 7.0), sensor("Core 0", 8.0)],
        "nvme": [sensor("", 30.0), sensor("0", 31.0)],
    }
    monkeypatch.setattr("psutil.sensors_temperatures", lambda: found, raising=False)
    assert sampling.read().temperatures == {
        "coretemp Core 0": 41.0, "coretemp Core 0 #2": 95.0, "coretemp Core 0 #2 #2": 7.0, "coretemp Core 0 #3": 8.0,
        "nvme 0": 30.0, "nvme 0 #2": 31.0,
    }  # fmt: skip


def test_kernel_names_that_are_not_utf_8_can_be_published(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = b"eth\xff".decode(errors="surrogateescape")
    counters = namedtuple("counters", "bytes_recv bytes_sent")
    monkeypatch.setattr("psutil.net_io_counters", lambda pernic, nowrap: {odd: counters(1, 2)})
    monkeypatch.setattr("socket.gethostname", lambda: odd)
    one = sampling.read()
    fields = decode(msgspec.json.encode(sample(one, one)))
    assert fields["hostname"] == r"eth\udcff"
    assert list(fields["net"]) == fields["uplinks"] == [r"eth\udcff"]


def test_a_container_s_limits_stand_beside_the_machine_s() -> None:
    def limited(used: int, seconds: float) -> Limits:
        return Limits(memory=4 * GIB, memory_used=used, cpus=0.5, cpu_seconds=seconds)

    before = msgspec.structs.replace(reading(0), limits=limited(GIB, 10.0))
    after = msgspec.structs.replace(reading(2), limits=limited(3 * GIB, 10.25))
    assert sample(before, after).container == Container(Share(4 * GIB, 3 * GIB, 75.0), 0.5, 0.25)
    assert sample(reading(0), after).container == Container(Share(4 * GIB, 3 * GIB, 75.0), 0.5, None)
    assert sample(before, reading(2)).container is None


async def test_a_measurement_that_hangs_is_named_and_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    started: list[threading.Thread] = []

    def hang() -> Reading:
        started.append(threading.current_thread())
        go_on.wait()
        return reading(1.0)

    monkeypatch.setattr(sampling, "read", hang)
    meter = Meter(patience=0.05)
    try:
        for _ in range(3):
            with pytest.raises(MeasuringHangs, match="hang"):
                await meter.read()
        await eventually(lambda: started, "the measurement began")
        assert len(started) == 1
    finally:
        go_on.set()
    await eventually(lambda: not started[0].is_alive(), "the thread of the measurement ended")
    await asyncio.sleep(0)  # the meter keeps its result, so that reading takes no time
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
