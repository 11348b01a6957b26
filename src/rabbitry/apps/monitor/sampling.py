"""One sample of this machine, for contracts `pi_utilization` and `system_info` alike.

`read()` takes the raw counters at one moment; `sample(before, after)` makes rates of two such readings. Rates
are over the monotonic time between the two, so a clock that is set does not touch them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import msgspec
import psutil

from rabbitry.apps.monitor.cgroup import Limits, limits
from rabbitry.apps.monitor.filesystems import local_filesystems, space
from rabbitry.apps.monitor.interfaces import uplinks
from rabbitry.apps.monitor.machine import machine_id
from rabbitry.apps.monitor.sample import Container, DiskRate, Memory, Net, Sample, Share, Space
from rabbitry.exceptions import RabbitryError

_WRAP = 2**32
_WRAP_LIMIT = 2**30
"""A 32-bit counter that went backwards wrapped if that means less than 1 GiB since; otherwise it restarted."""
_NO_DISKS = ("loop", "ram", "zram", "fd", "sr")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The raw counters at one moment."""

    at: float
    """Monotonic seconds."""
    cores: list[tuple[float, float]]
    """Busy and all seconds of each core since the machine started."""
    net: dict[str, tuple[int, int]]
    """Bytes received and sent by each interface."""
    uplinks: list[str] = []
    """The interfaces whose traffic is the machine's own."""
    disks: dict[str, tuple[int, int]]
    """Bytes read and written by each whole block device."""
    memory: Memory
    swap: Space
    disk: Space
    filesystems: dict[str, Space] = {}
    load: list[float]
    temperatures: dict[str, float]
    uptime: int
    processes: int
    limits: Limits | None = None


class MeasuringHangs(RabbitryError):
    """The operating system did not answer a measurement in time (a file system that hangs, mostly)."""


def hostname() -> str:
    """Return this machine's name, as it stands in samples and as the default routing key."""
    return _text(socket.gethostname())


def read() -> Reading:
    """Take the counters now. May block on a local file system: not for the event loop's thread."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    cores = [_busy_and_all(times) for times in psutil.cpu_times(percpu=True)]
    net = {
        name: (counters.bytes_recv, counters.bytes_sent)
        for name, counters in psutil.net_io_counters(pernic=True, nowrap=False).items()
    }
    return Reading(
        at=time.monotonic(),
        cores=cores,
        net={_text(name): counters for name, counters in net.items()},
        uplinks=[_text(name) for name in uplinks({name: sum(counters) for name, counters in net.items()})],
        disks=_disks(),
        memory=_memory(memory.total, memory.available),
        swap=space(swap.used, swap.free),
        disk=space(*psutil.disk_usage("/")[1:3]),
        filesystems={_text(point): found for point, found in local_filesystems().items()},
        load=[round(load, 2) for load in psutil.getloadavg()],
        temperatures=_temperatures(),
        uptime=_uptime(),
        processes=len(psutil.pids()),
        limits=limits(memory.total, len(cores)),
    )


def sample(before: Reading, after: Reading) -> Sample:
    """Return the sample between two readings.

    An interface or disk that is only in one of them has no rate, and is left out. A counter that went
    backwards wrapped at 32 bits or started anew at 0, see `_grown`.
    """
    seconds = max(after.at - before.at, 1e-3)
    cores, cpu = _busy(before.cores, after.cores)
    return Sample(
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        hostname=hostname(),
        machine=machine_id(),
        platform=platform.platform(),
        cpu=cpu,
        cpu_percent=round(100 * cpu, 2),
        cores=cores,
        net={name: Net(*rates) for name, rates in _rates(before.net, after.net, seconds).items()},
        uplinks=[name for name in after.uplinks if name in before.net],
        memory=after.memory,
        swap=after.swap,
        disk=after.disk,
        filesystems=after.filesystems,
        disks={name: DiskRate(*rates) for name, rates in _rates(before.disks, after.disks, seconds).items()},
        load=after.load,
        temperatures=after.temperatures,
        uptime=after.uptime,
        processes=after.processes,
        container=_container(before.limits, after.limits, seconds),
    )


class Meter:
    """Takes readings in a daemon thread, one at a time.

    A file system that hangs therefore stops neither the event loop nor the exit of the process.
    """

    def __init__(self, patience: float = 5.0) -> None:
        """Start no thread yet.

        Args:
            patience: Seconds that `read` waits for a reading.
        """
        self._patience = patience
        self._pending: asyncio.Future[Reading] | None = None

    async def read(self) -> Reading:
        """Take a reading.

        Cancelling leaves the measurement to its thread; the next call waits for that same one.

        Raises:
            MeasuringHangs: it takes longer than `patience`.
            OSError: the operating system refused the numbers.
        """
        if self._pending is None:
            self._pending = _in_daemon_thread()
        pending = self._pending
        try:
            async with asyncio.timeout(self._patience):
                reading = await asyncio.shield(pending)
        except TimeoutError as error:
            raise MeasuringHangs(
                f"measuring this machine has not finished within {self._patience:g} s; does a file system hang?"
            ) from error
        finally:
            if pending.done():
                self._pending = None
        return reading


def _in_daemon_thread() -> asyncio.Future[Reading]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Reading] = loop.create_future()

    def deliver(reading: Reading | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
            future.exception()  # nobody has to wait any more for a reading that took too long
        elif reading is not None:
            future.set_result(reading)

    def work() -> None:
        reading: Reading | None = None
        failure: Exception | None = None
        try:
            reading = read()
        except Exception as error:  # noqa: BLE001 - handed over to whoever awaits the future
            failure = error
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(deliver, reading, failure)

    threading.Thread(target=work, name="meter", daemon=True).start()
    return future


def _busy_and_all(times: Any) -> tuple[float, float]:
    # On Linux user and nice hold guest and guest_nice already (proc(5), /proc/stat).
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return everything - times.idle - getattr(times, "iowait", 0.0), everything


def _busy(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> tuple[list[float], float]:
    """Return the busy fraction of each core, and of all together. Counters of iowait may go backwards: clamped."""
    if len(before) != len(after):  # a core was plugged or unplugged: numbers don't belong to the same ones
        return [], 0.0
    cores: list[float] = []
    busy_seconds = all_seconds = 0.0
    for (busy_before, all_before), (busy_after, all_after) in zip(before, after, strict=True):
        everything = max(all_after - all_before, 0.0)
        busy = min(max(busy_after - busy_before, 0.0), everything)
        cores.append(round(busy / everything, 4) if everything else 0.0)
        busy_seconds += busy
        all_seconds += everything
    return cores, round(busy_seconds / all_seconds, 4) if all_seconds else 0.0


def _rates(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], seconds: float
) -> dict[str, tuple[int, int]]:
    return {
        name: (
            round(_grown(before[name][0], now[0]) / seconds),
            round(_grown(before[name][1], now[1]) / seconds),
        )
        for name, now in after.items()
        if name in before
    }


def _grown(before: int, now: int) -> int:
    """By how much a counter grew that may have wrapped at 32 bits or started anew at 0."""
    if now >= before:
        return now - before
    wrapped = now + _WRAP - before
    return wrapped if before < _WRAP and wrapped < _WRAP_LIMIT else now


def _uptime() -> int:
    """Return the seconds since this machine started, with those that it slept."""
    if sys.platform == "linux":
        return int(time.clock_gettime(time.CLOCK_BOOTTIME))  # which nobody sets
    else:
        return int(time.time() - psutil.boot_time())


def _disks() -> dict[str, tuple[int, int]]:
    try:
        counters = psutil.disk_io_counters(perdisk=True, nowrap=False)
        # Linux counts partitions, too.
        whole = os.listdir("/sys/block") if sys.platform == "linux" else list(counters)
    except (OSError, NotImplementedError):  # a container that hides them
        return {}
    return {
        name: (numbers.read_bytes, numbers.write_bytes)
        for name, numbers in counters.items()
        if name in whole and not name.startswith(_NO_DISKS)
    }


class _Sensor(Protocol):
    label: str
    current: float


def _temperatures() -> dict[str, float]:
    sensors = getattr(psutil, "sensors_temperatures", None)  # not on every system
    if sensors is None:
        return {}
    found: dict[str, float] = {}
    try:
        groups = cast("Mapping[str, Sequence[_Sensor]]", sensors())
    except OSError:  # a driver that fails is no reason to publish nothing
        return found
    for chip, group in groups.items():
        for number, sensor in enumerate(group):
            found[_unused(_text(f"{chip} {sensor.label or number}".strip()), found)] = round(sensor.current, 1)
    return found


def _unused(name: str, names: Collection[str]) -> str:
    """Return `name`, numbered if it is taken: a machine with two processors has `coretemp Core 0` twice."""
    numbered = (f"{name} #{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in names)


def _memory(total: int, available: int) -> Memory:
    used = total - available  # psutil's "used" leaves out some of what is not available, so that it disagrees
    return Memory(total, available, used, round(100 * used / total, 1) if total else 0.0)


def _container(before: Limits | None, after: Limits | None, seconds: float) -> Container | None:
    if after is None:
        return None
    memory = cpu = None
    if after.memory is not None and after.memory_used is not None:
        percent = round(100 * after.memory_used / after.memory, 1) if after.memory else 100.0
        memory = Share(after.memory, after.memory_used, percent)
    if after.cpus and after.cpu_seconds is not None and before is not None and before.cpu_seconds is not None:
        busy = (after.cpu_seconds - before.cpu_seconds) / seconds / after.cpus
        cpu = round(min(max(busy, 0.0), 1.0), 4)
    return Container(memory, None if after.cpus is None else round(after.cpus, 2), cpu)


def _text(name: str) -> str:
    """Return `name` as it can stand in JSON: names of the kernel are bytes, and need not be UTF-8."""
    return name.encode(errors="backslashreplace").decode()
