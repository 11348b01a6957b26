"""The network interfaces whose traffic is the machine's own.

A byte from a container passes its veth, a bridge, perhaps a VLAN, and a network card: summing all interfaces counts it
three times. It is counted where it leaves the machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

SYSFS = Path("/sys/class/net")

_LOOPBACK = re.compile(r"lo\d*|loopback\b.*", re.IGNORECASE)
_BOND = re.compile(r"(bond|team|lagg|port-channel)\d*")
_STACKED = re.compile(
    # bridges and switches, also of virtual machines and containers
    r"(br|vmbr|fwbr|vbr|xenbr|ovsbr|bridge)\d+.*|br[-_].+|(docker|podman|virbr|lxcbr|lxdbr|incusbr|vmnet|vboxnet|cni|kube-bridge|cbr)\d*.*"
    r"|docker_gwbridge|ovs-system|vswitch.*|vethernet\b.*"
    # their ports
    r"|(veth|vnet|vif|tap|fwpr|fwln|macvtap|macvlan|ipvlan|cali|lxc|lxd|cilium|azv|eni(?=[0-9a-f]{11}$)|nomad_|ifb).*"
    # VLANs and overlays
    r"|vlan.*|(vxlan|flannel|geneve|weave|vethwe|kube-ipvs|nodelocaldns|genev_sys|vxlan_sys|antrea-gw).*"
    # tunnels, and what has no network behind it
    r"|(tun|utun|wg|ppp|gre|gretap|erspan|sit|ip6tnl|tunl|ip_vti|ip6_vti|ip6gre|ipsec|zt|tailscale|nordlynx|proton|dummy|nlmon)\d*.*"
    r"|(gif|stf|awdl|llw|anpi|pflog|pktap)\d+",
    re.IGNORECASE,
)


def uplinks(counters: Mapping[str, float], sysfs: Path = SYSFS) -> list[str]:
    """Return the interfaces of this machine that count its traffic, each byte once, in order.

    Args:
        counters: interface → bytes that it carried.
        sysfs: what the kernel says of interfaces.
    """
    # The host's ends of Xen's guests have a "device" too.
    cards = {name for name in counters if (sysfs / name / "device").exists() and _rank(name, counters) == 0}
    own = sorted(name for name in cards if not _is_above_or_below(name, cards, sysfs))
    if own:
        return own
    # A container's interface has no hardware, and so has that of some virtual machines.
    return by_name({name: total for name, total in counters.items() if not _carries_others(sysfs / name)})


def by_name(traffic: Mapping[str, float]) -> list[str]:
    """Return the interfaces that are network cards by their names, in order; bonds, if there are no cards.

    If all of them are bridges, VLANs or tunnels, it is the busiest: one may carry what the others do.

    Args:
        traffic: interface → bytes, or bytes a second.
    """
    ranks: dict[int, list[str]] = {}
    for name in traffic:
        ranks.setdefault(_rank(name, traffic), []).append(name)
    if cards := ranks.get(0) or ranks.get(1):
        return sorted(cards)
    stacked = ranks.get(2)
    return [max(sorted(stacked), key=lambda name: traffic[name])] if stacked else []


def _rank(name: str, all_names: Collection[str]) -> int:
    """Return 0 for a network card, 1 for a bond, 2 for an interface on top of another one, 3 for loopback."""
    plain = name.partition("@")[0].strip()  # `ip` prints eth0.5@eth0
    if _LOOPBACK.fullmatch(plain):
        return 3
    parent, dot, number = plain.rpartition(".")
    if (dot and number.isdigit() and parent in all_names) or _STACKED.fullmatch(plain):
        return 2
    parent, colon, _ = plain.rpartition(":")  # an alias, eth0:1
    if colon and parent in all_names:
        return 2
    return 1 if _BOND.fullmatch(plain) else 0


def _is_above_or_below(name: str, cards: set[str], sysfs: Path) -> bool:
    """Return whether another card counts what this one carries.

    That is so for a virtual function under its synthetic card (Hyper-V: the master's counters include it), and for the
    ports of a switch chip on the card that they hang on. A bond has no hardware, so its members do count.
    """
    if _link(sysfs / name / "master") in cards:
        return True
    lower = _lower(sysfs / name) & cards
    return any(_link(sysfs / other / "master") != name for other in lower)


def _carries_others(interface: Path) -> bool:
    """Return whether the kernel calls it a bridge, a bond, a bridge's port, a tunnel, or one on top of another."""
    marks = ("bridge", "bonding", "brport", "tun_flags")
    return any((interface / mark).exists() for mark in marks) or bool(_lower(interface))


def _lower(interface: Path) -> set[str]:
    try:
        return {entry.name.removeprefix("lower_") for entry in interface.iterdir() if entry.name.startswith("lower_")}
    except OSError:
        return set()


def _link(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""
