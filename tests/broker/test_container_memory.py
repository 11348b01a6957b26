"""The memory available to a broker is its container's limit, if that is lower than the machine's memory."""

from pathlib import Path

import pytest

from rabbitry.broker._alarms import total_memory

_MACHINE = total_memory(Path("/nowhere"))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),
        ("0::/\n", {"memory.max": "max\n"}, _MACHINE),
        ("0::/\n", {}, _MACHINE),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "3000\n", "memory.max": "9000\n"}, 3000),
        ("0::/a/b\n", {"a/b/memory.max": "2000\n", "a/memory.max": "max\n"}, 2000),
        ("0::/docker/0123abcd\n", {"memory.max": "4000\n"}, 4000),  # the path outside of the container
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "5000\n"}, 5000),
        ("4:cpu,memory:/x\n", {"cpu,memory/memory.limit_in_bytes": "6000\n"}, 6000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, _MACHINE),
        ("4:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "7000\n", "unified/memory.max": "max\n"}, 7000),
        ("0::/../../other\n", {"memory.max": "8000\n"}, 8000),
        ("broken\n", {"memory.max": "8000\n"}, _MACHINE),
        ("0::/\n", {"memory.max": "-1\n"}, _MACHINE),
    ],
)
def test_the_lowest_limit_of_all_control_groups_applies(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert total_memory(tmp_path) == expected
