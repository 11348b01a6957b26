"""The id of a machine: unique, stable, and not reversible."""

from pathlib import Path

import pytest

from rabbitry.apps.monitor.machine import machine_id

SECRET = "0123456789abcdef0123456789abcdef"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def card(name: str, address: str, *, index: int = 2, assigned: str = "0") -> dict[str, str]:
    folder = f"sys/class/net/{name}"
    return {
        f"{folder}/device/x": "", f"{folder}/address": f"{address}\n", f"{folder}/ifindex": f"{index}\n",
        f"{folder}/addr_assign_type": f"{assigned}\n",
    }  # fmt: skip


def test_it_is_stable_and_does_not_hold_the_machine_id(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", {"etc/machine-id": f"{SECRET}\n"})
    two = machine(tmp_path / "b", {"etc/machine-id": SECRET, "proc/sys/kernel/random/boot_id": "another boot"})
    assert machine_id(one) == machine_id(two)
    assert len(machine_id(one)) == 16
    assert not set(machine_id(one)) - set("0123456789abcdef")
    assert machine_id(one) not in SECRET


def test_another_machine_has_another(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", {"etc/machine-id": SECRET})
    two = machine(tmp_path / "b", {"etc/machine-id": SECRET[::-1]})
    assert machine_id(one) != machine_id(two)


def test_clones_with_one_machine_id_differ_by_their_network_cards(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", {"etc/machine-id": SECRET} | card("eth0", "02:00:00:00:00:01"))
    two = machine(tmp_path / "b", {"etc/machine-id": SECRET} | card("eth0", "02:00:00:00:00:02"))
    assert machine_id(one) != machine_id(two)


def test_cards_that_come_later_or_change_their_address_do_not_change_it(tmp_path: Path) -> None:
    own = {"etc/machine-id": SECRET} | card("eth0", "02:00:00:00:00:01")
    one = machine(tmp_path / "a", own | card("wlan0", "aa:00:00:00:00:01", index=1, assigned="3"))
    two = machine(tmp_path / "b", own | card("usb0", "00:00:00:00:00:05", index=7))
    assert machine_id(one) == machine_id(two)


@pytest.mark.parametrize("empty", ["", "\n", "uninitialized\n"])
def test_a_container_without_one_uses_that_of_the_boot(tmp_path: Path, empty: str) -> None:
    one = machine(tmp_path, {"etc/machine-id": empty, "proc/sys/kernel/random/boot_id": "1-2-3\n"})
    assert len(machine_id(one)) == 16


def test_without_distinguishing_data_the_id_is_empty(tmp_path: Path) -> None:
    assert machine_id(machine(tmp_path, card("eth0", "02:00:00:00:00:01"))) == ""
