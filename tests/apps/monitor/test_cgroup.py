"""Limits of control groups of both versions, in containers with and without a cgroup namespace."""

from pathlib import Path

import pytest

from rabbitry.apps.monitor.cgroup import Limits, limits

GIB = 2**30


def system(root: Path, cgroup: str, mounts: list[str], files: dict[str, str]) -> Path:
    """Write the kernel's files of control groups below `root`."""
    here = root / "proc/self"
    here.mkdir(parents=True)
    (here / "cgroup").write_text(cgroup)
    head = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    (here / "mountinfo").write_text(head + "".join(f"{20 + n} 21 0:1 {line}\n" for n, line in enumerate(mounts)))
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


UNIFIED = ["/ /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw,nsdelegate"]


def test_a_container_of_version_2_has_its_limits_at_the_top(tmp_path: Path) -> None:
    files = {
        "memory.max": str(GIB), "memory.current": str(GIB // 2), "memory.stat": f"anon 5\ninactive_file {GIB // 4}",
        "cpu.max": "150000 100000", "cpu.stat": "usage_usec 2500000\nuser_usec 1",
    }  # fmt: skip
    found = limits(16 * GIB, 8, system(tmp_path, "0::/\n", UNIFIED, files))
    assert found == Limits(GIB, GIB // 4, 1.5, 2.5)


def test_the_smallest_limit_of_the_groups_above_counts(tmp_path: Path) -> None:
    files = {
        "a/b/c/memory.max": "max", "a/b/c/cpu.max": "max 100000",
        "a/b/memory.max": str(2 * GIB), "a/b/memory.current": "70", "a/b/cpu.max": "400000 100000",
        "a/memory.max": str(4 * GIB), "a/memory.current": "90", "a/cpu.max": "200000 100000",
        "a/cpu.stat": "usage_usec 1000000",
    }  # fmt: skip
    found = limits(16 * GIB, 8, system(tmp_path, "0::/a/b/c\n", UNIFIED, files))
    assert found == Limits(2 * GIB, 70, 2.0, 1.0)


def test_limits_above_the_machines_are_ignored(tmp_path: Path) -> None:
    files = {"memory.max": str(16 * GIB), "memory.current": "1", "cpu.max": "800000 100000", "cpu.stat": "usage_usec 1"}
    assert limits(16 * GIB, 8, system(tmp_path, "0::/\n", UNIFIED, files)) is None
    assert limits(16 * GIB, 9, tmp_path) == Limits(None, None, 8.0, 1e-6)


@pytest.mark.parametrize("text", ["", "max", "max 100000", "x y", "100 0", "-1"])
def test_malformed_limits_are_ignored(tmp_path: Path, text: str) -> None:
    assert limits(16 * GIB, 8, system(tmp_path, "0::/\n", UNIFIED, {"memory.max": "max", "cpu.max": text})) is None


def _version_1(mounted: str) -> list[str]:
    options = {"memory": "memory", "cpu,cpuacct": "cpu,cpuacct", "cpuset": "cpuset"}
    return [f"{mounted} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{option}" for name, option in options.items()]


@pytest.mark.parametrize(("mounted", "below"), [("/docker/abc", ""), ("/", "docker/abc/"), ("/docker", "abc/")])
def test_a_container_of_version_1_reads_the_host_s_path_or_its_own(tmp_path: Path, mounted: str, below: str) -> None:
    cgroup = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n1:name=systemd:/docker/abc\n"
    files = {
        f"memory/{below}memory.limit_in_bytes": str(GIB),
        f"memory/{below}memory.usage_in_bytes": "1000",
        f"memory/{below}memory.stat": "cache 1\ntotal_inactive_file 400",
        f"cpu,cpuacct/{below}cpu.cfs_quota_us": "50000",
        f"cpu,cpuacct/{below}cpu.cfs_period_us": "100000",
        f"cpu,cpuacct/{below}cpu.stat": "nr_periods 0",
        f"cpu,cpuacct/{below}cpuacct.usage": "3000000000",
        f"cpuset/{below}cpuset.effective_cpus": "0-3",
    }
    found = limits(16 * GIB, 8, system(tmp_path, cgroup, _version_1(mounted), files))
    assert found == Limits(GIB, 600, 0.5, 3.0)


def test_a_large_number_in_version_1_means_no_limit(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712", "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }  # fmt: skip
    cgroup = "5:memory:/\n4:cpu,cpuacct:/\n"
    assert limits(16 * GIB, 8, system(tmp_path, cgroup, _version_1("/"), files)) is None


def test_processors_that_a_container_is_pinned_to_are_its_limit(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "cpu.stat": "usage_usec 9000000", "cpuset.cpus.effective": "0-1,5"}
    found = limits(16 * GIB, 8, system(tmp_path, "0::/\n", UNIFIED, files))
    assert found == Limits(None, None, 3.0, 9.0)


def test_time_of_another_group_than_the_one_with_the_limit_is_not_taken(tmp_path: Path) -> None:
    mounts = [
        "/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
        "/ /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct",
    ]
    files = {
        "cpu/own/cpu.cfs_quota_us": "50000", "cpu/own/cpu.cfs_period_us": "100000", "cpuacct/cpuacct.usage": "7",
    }  # fmt: skip
    found = limits(16 * GIB, 8, system(tmp_path, "2:cpuacct:/\n1:cpu:/own\n0::/\n", mounts, files))
    assert found == Limits(None, None, 0.5, None)


def test_a_machine_without_control_groups_has_none(tmp_path: Path) -> None:
    assert limits(GIB, 1, tmp_path) is None
    assert limits(GIB, 1, system(tmp_path, "garbage\n0::/../..\n", ["/ /gone rw - cgroup2 c rw", "short"], {})) is None
