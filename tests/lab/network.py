"""Interfaces, by the commands ip and tc.

The lab's switch is a bridge in a network namespace of its own, and so is every segment behind a jump host; of all this
the machine's own namespace shows one interface. A node's namespace is made anew at every start, so that
nothing of what ran in it is left.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.names import CONTROLLER, Names

PREFIX = "cslab-"
_BURST_BYTES, _QUEUE_MS = 32_768, 200


class CommandFailed(Exception):
    """A command of the system's said no."""


@dataclass(frozen=True)
class Segment:
    """A network with a switch: number 0 is a lab's own, the others are behind jump hosts. netns: of its switch."""

    names: Names
    number: int
    netns: str

    def address(self, host: int) -> str:
        return self.names.address(self.number, host)


@dataclass(frozen=True)
class Plug:
    """Where an interface is: in which node's namespace, as what, at which port of which segment."""

    segment: Segment
    netns: str
    host: int
    name: str = "eth0"

    @property
    def port(self) -> str:
        return f"p{self.host}"

    @property
    def address(self) -> str:
        return self.segment.address(self.host)

    @property
    def mac(self) -> str:
        return f"02:c5:77:{self.segment.names.number:02x}:{self.segment.number:02x}:{self.host:02x}"


def call(*argv: str, text: str = "") -> str:
    """Its stdout; CommandFailed with what it said."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def batch(netns: str, lines: Iterable[str]) -> None:
    """Several ip commands in one process; netns '': the machine's own."""
    call("ip", *(("-n", netns) if netns else ()), "-batch", "-", text="\n".join(lines) + "\n")


def add_switch(segment: Segment) -> None:
    call("ip", "netns", "add", segment.netns)
    batch(
        segment.netns,
        ["link set lo up", "link add name hub type bridge forward_delay 0 mcast_snooping 0", "link set hub up"],
    )


def add_control(lan: Segment) -> None:
    """This machine's way into the lab: for all of its addresses, so that those behind a jump host are unreachable from
    here, instead of being somebody else's by the default route."""
    name = lan.names.control
    batch("", [f"link add {name} type veth peer name ctl netns {lan.netns}"])
    batch(lan.netns, ["link set ctl master hub up"])
    batch("", [f"addr add {lan.address(CONTROLLER)}/16 dev {name}", f"link set {name} up"])


def add_node(netns: str) -> None:
    call("ip", "netns", "add", netns)
    batch(netns, ["link set lo up"])


def add_pair(plug: Plug) -> None:
    """A cable between node and switch; a delay line makes both ends itself."""
    batch(plug.segment.netns, [f"link add {plug.port} type veth peer name {plug.name} netns {plug.netns}"])


def connect(plug: Plug) -> None:
    """Both ends are there: switch them on."""
    batch(plug.segment.netns, [f"link set {plug.port} master hub up"])
    batch(
        plug.netns,
        [
            f"link set {plug.name} address {plug.mac} addrgenmode none",
            f"addr add {plug.address}/24 dev {plug.name}",
            f"link set {plug.name} up",
        ],
    )


def connect_guest(plug: Plug, tap: str) -> None:
    """The node's end is a bridge, and behind it a tap for the guest, who has the address."""
    batch(plug.segment.netns, [f"link set {plug.port} master hub up"])
    batch(
        plug.netns,
        [
            "link add name inner type bridge forward_delay 0 mcast_snooping 0",
            f"tuntap add dev {tap} mode tap",
            *(f"link set {name} addrgenmode none" for name in ("inner", tap, plug.name)),
            *(f"link set {name} master inner up" for name in (tap, plug.name)),
            "link set inner up",
        ],
    )


def throttle(plug: Plug, mbit: float) -> None:
    """Both directions. A queue's length in time: beyond it, packets are lost, and TCP slows down."""
    for netns, name in ((plug.segment.netns, plug.port), (plug.netns, plug.name)):
        rate = ("rate", f"{mbit:g}mbit", "burst", str(_BURST_BYTES), "latency", f"{_QUEUE_MS}ms")
        call("tc", "-n", netns, "qdisc", "replace", "dev", name, "root", "tbf", *rate)


def unplug(plug: Plug) -> None:
    """Out of the switch: no carrier is lost, nobody is told; as cut somewhere on the way."""
    batch(plug.segment.netns, [f"link set {plug.port} nomaster"])


def plug_in(plug: Plug) -> None:
    batch(plug.segment.netns, [f"link set {plug.port} master hub"])


def remove_node(netns: str, plugs: Sequence[Plug]) -> None:
    """The ports first: a namespace's interfaces go some time after it, and their names are wanted again."""
    for plug in plugs:
        if plug.port in links(plug.segment.netns):
            batch(plug.segment.netns, [f"link del {plug.port}"])
    call("ip", "netns", "del", netns)


def namespaces() -> list[str]:
    """The lab's, by name."""
    folder = Path("/run/netns")
    return sorted(name for name in (os.listdir(folder) if folder.is_dir() else ()) if name.startswith(PREFIX))


def links(netns: str = "") -> list[str]:
    """Names of the interfaces there; a pair's end is shown as `name@other`."""
    shown = call("ip", *(("-n", netns) if netns else ()), "-o", "link")
    return [line.split(": ")[1].partition("@")[0] for line in shown.splitlines()]


def pids(netns: str) -> list[int]:
    """Whoever is in a namespace."""
    return [int(pid) for pid in call("ip", "netns", "pids", netns).split()]
