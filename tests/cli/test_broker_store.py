"""`rabbitry broker check` and `repair`, as a user calls them."""

import json
from pathlib import Path

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from tests.support import commands


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    async with Broker(BrokerConfig(port=0, data=tmp_path / "mq")) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks", durable=True)
        for number in range(30):
            await channel.send(b"%d:" % number + b"x" * 2000, routing_key="tasks")
        await channel.wait_for_confirms()
    return tmp_path / "mq"


def _damage(folder: Path) -> None:
    path = folder / "broker.sqlite"
    data = path.read_bytes()
    at = data.index(b"x" * 2000) // 4096 * 4096
    path.write_bytes(data[:at] + bytes(4096) + data[at + 4096 :])


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_an_undamaged_folder_is_reported_and_not_changed(folder: Path) -> None:
    before = _files(folder)
    for command in ("check", "repair"):
        done = commands.run("broker", command, str(folder))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["queue 'tasks' of '/': 30 messages", "all of it is whole"]
    assert _files(folder) == before


async def test_damage_is_named_repaired_and_set_aside(folder: Path) -> None:
    _damage(folder)
    before = _files(folder)
    done = commands.run("broker", "check", str(folder), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    lost = found["lost"]["'tasks' of '/'"]
    assert found["whole"] is False
    assert found["queues"]["'tasks' of '/'"] + lost == 30
    assert _files(folder) == before
    done = commands.run("broker", "repair", str(folder))
    assert done.returncode == 0
    assert f"queue 'tasks' of '/': {lost:,} messages can't be read" in done.stdout
    (aside,) = {Path(name).parent for name in _files(folder) if "damaged-" in name}
    assert str(aside) in done.stdout
    assert (aside / "broker.sqlite").read_bytes() == before[str(folder / "broker.sqlite")]
    assert commands.run("broker", "check", str(folder)).returncode == 0
    async with Broker(BrokerConfig(port=0, data=folder)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert (await channel.declare_queue("tasks", passive=True)).message_count == 30 - lost


@pytest.mark.parametrize("command", ["check", "repair"])
async def test_a_folder_in_use_is_refused(tmp_path: Path, command: str) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        done = commands.run("broker", command, str(tmp_path))
    assert done.returncode == 1
    assert "a broker uses the data folder" in done.stderr


@pytest.mark.parametrize("command", ["check", "repair"])
@pytest.mark.parametrize("name", ["", "nothing"])
def test_another_folder_gets_one_clear_line(tmp_path: Path, command: str, name: str) -> None:
    done = commands.run("broker", command, str(tmp_path / name))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "is not a data folder of a broker" in line
    assert not list(tmp_path.iterdir())
