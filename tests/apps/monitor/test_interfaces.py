"""Each byte counts once, at the interface where it leaves the machine: by the kernel's data, and by names alone."""

from pathlib import Path

import pytest

from rabbitry.apps.monitor.interfaces import by_name, uplinks


def kernel(root: Path, **interfaces: str) -> Path:
    """Write a /sys/class/net with the properties of each interface, such as `device master=br0 lower=eth0 bridge`."""
    for name, marks in interfaces.items():
        folder = root / name
        folder.mkdir()
        for mark in marks.split():
            kind, _, other = mark.partition("=")
            if kind in ("master", "lower"):
                (folder / ("master" if kind == "master" else f"lower_{other}")).symlink_to(f"../{other}")
            else:
                (folder / kind).mkdir()
    return root


def counted(root: Path, **interfaces: str) -> list[str]:
    return uplinks(dict.fromkeys([*interfaces, "lo"], 1.0), kernel(root, **interfaces))


def test_a_host_of_containers_counts_its_cards(tmp_path: Path) -> None:
    found = counted(tmp_path, eth0="device", wlan0="device", docker0="bridge", veth1="brport master=docker0", tun0="")
    assert found == ["eth0", "wlan0"]


def test_of_a_bond_its_members_count_and_of_a_vlan_its_parent(tmp_path: Path) -> None:
    found = counted(
        tmp_path, eno1="device master=up", eno2="device master=up", up="bonding lower=eno1 lower=eno2",
        internet="lower=up", br0="bridge lower=internet",
    )  # fmt: skip
    assert found == ["eno1", "eno2"]


def test_a_card_in_a_bridge_counts_and_its_guests_do_not(tmp_path: Path) -> None:
    found = counted(
        tmp_path, enp3s0="device brport master=lan", lan="bridge", vnet0="brport tun_flags", vif1="device",
    )  # fmt: skip
    assert found == ["enp3s0"]


def test_a_virtual_function_counts_in_its_master(tmp_path: Path) -> None:
    assert counted(tmp_path, eth0="device lower=enP1", enP1="device master=eth0") == ["eth0"]


def test_the_ports_of_a_switch_chip_count_in_the_card_that_they_hang_on(tmp_path: Path) -> None:
    assert counted(tmp_path, eth0="device", lan1="device lower=eth0", lan2="device lower=eth0") == ["eth0"]


def test_a_container_counts_its_interface_though_it_has_no_hardware(tmp_path: Path) -> None:
    assert counted(tmp_path, eth0="") == ["eth0"]


def test_containers_within_a_container_count_once(tmp_path: Path) -> None:
    found = counted(tmp_path, eth0="", inner="bridge", v1="brport", mine="tun_flags", x="lower=eth0", sit0="")
    assert found == ["eth0"]


def test_without_kernel_data_names_decide(tmp_path: Path) -> None:
    assert uplinks({"eth0": 1, "docker0": 5, "lo": 9}, tmp_path / "missing") == ["eth0"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("eth0 docker0 veth1a2b3c4", ["eth0"]),
        ("eth0 br-0a1b2c3d4e5f docker_gwbridge veth9", ["eth0"]),
        ("eth0 eth1 bond0 bond0.100", ["eth0", "eth1"]),
        ("eth0 eth0.5 eth0.7@eth0 eth0:1 vlan20", ["eth0"]),
        ("enp1s0 virbr0 virbr0-nic vnet0 vnet1", ["enp1s0"]),
        ("eno1 vmbr0 tap100i0 fwbr100i0 fwpr100p0 fwln100i0", ["eno1"]),
        ("ens5 eni0123456789a cali1234 flannel.1 cni0 kube-ipvs0 nodelocaldns", ["ens5"]),
        ("en0 en5 lo0 gif0 stf0 awdl0 llw0 utun0 utun3 bridge0 anpi0", ["en0", "en5"]),
        ("wlan0 wg0 tailscale0 tun0 ppp0 zt5u4 dummy0 ifb0 sit0", ["wlan0"]),
        ("eth0 vxlan1 geneve1 gre0 gretap0 ip6tnl0 tunl0 macvtap0 lxdbr0 lxcbr0 podman0", ["eth0"]),
        ("Ethernet vEthernet (WSL) Loopback Pseudo-Interface 1", ["Ethernet"]),
        ("bond0 docker0 veth0", ["bond0"]),
        ("eth0@if5 lo", ["eth0@if5"]),
        ("eth0.5", ["eth0.5"]),
        ("lo", []),
        ("", []),
        ("__proto__ lo", ["__proto__"]),
        ("wwan0 usb0 eth10 wlp3s0 enx00112233", ["enx00112233", "eth10", "usb0", "wlp3s0", "wwan0"]),
        ("ib0 venet0", ["ib0", "venet0"]),
    ],
)  # fmt: skip
def test_cards_are_known_by_their_names(names: str, expected: list[str]) -> None:
    known = {"vEthernet (WSL)", "Loopback Pseudo-Interface 1"}
    odd = {name for name in known if name in names}
    for name in odd:
        names = names.replace(name, "")
    assert by_name(dict.fromkeys([*names.split(), *odd], 1.0)) == expected


def test_if_all_interfaces_are_stacked_the_busiest_counts() -> None:
    assert by_name({"br0": 10.0, "br0.5": 8.0, "tun0": 30.0, "lo": 99.0}) == ["tun0"]


def test_a_long_name_is_read_in_linear_time() -> None:
    assert by_name({"br" * 100_000: 1.0, "eth0": 1.0}) == sorted(["br" * 100_000, "eth0"])
