"""The lab: a switch, and nodes on it.

One at a time on a machine: names of namespaces and addresses are fixed, so that whatever a lab that died half made has
left is found by them. Its folder holds all of its state; /run/coldstart-lab says where that is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lab import cgroups, inventory, network, removal, shapes
from lab.capture import Capture
from lab.network import CONTROLLER, LAN, Plug, Segment
from lab.node import Node, make_key
from lab.shapes import Shape

FOLDER = Path("/var/tmp/coldstart-lab")
STATE = removal.STATE
_AT_ONCE = 8  # nodes that start at the same time
COMMANDS = ("/usr/sbin/sshd", "ssh-keygen", "ip", "tc", "nsenter")


class LabError(Exception):
    """No lab can be had here, and why."""


class Lab:
    """`with Lab(folder, shapes) as lab:` or up() and down(). folder: made by up, removed by down."""

    def __init__(self, folder: Path = FOLDER, fleet: Sequence[Shape] = shapes.DEFAULT) -> None:
        shapes.check(fleet)
        self.folder = folder.absolute()
        self._segments = _segments(fleet)
        plugs = _plugs(fleet, self._segments)
        hosts = "".join(f"{mine[0].address} {name}\n" for name, mine in plugs.items())
        self.nodes = {shape.name: Node(shape, self.folder / shape.name, plugs[shape.name], hosts) for shape in fleet}

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yaml"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        """The private key that every node lets in."""
        return self.folder / "key"

    @property
    def ssh_config(self) -> Path:
        """For ssh(1): `ssh -F FILE NODE`."""
        return self.folder / "ssh_config"

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """All nodes answer when it returns; LabError, and nothing is left, if that cannot be."""
        _claim(self.folder)
        try:
            self._make()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        removal.remove(self.folder)

    def capture(self, *at: str) -> Capture:
        """Packets as they pass these nodes' interfaces; without names, the switch of the lab."""
        return Capture({name: self.nodes[name].netns for name in at} or {"": network.SWITCH})

    def ssh(self, name: str, *argv: str) -> list[str]:
        """A command line that runs `argv` there."""
        return ["ssh", "-F", str(self.ssh_config), name, *argv]

    def run_ssh(self, name: str, *argv: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """As any user of ssh would; what the exit status means is for the caller to judge."""
        return subprocess.run(self.ssh(name, *argv), capture_output=True, text=True, timeout=limit_s, check=False)

    def write_access(self) -> None:
        """known_hosts, the inventory and a configuration for ssh, of the keys and addresses as they are now."""
        entries = [self._entry(node) for node in self.nodes.values()]
        keys = "".join(f"{node.address} {node.public_host_key}\n" for node in self.nodes.values())
        self.known_hosts.write_text(keys)
        self.inventory.write_text(inventory.inventory(self.folder, entries))
        self.ssh_config.write_text(inventory.ssh_config(self.folder, entries))

    def _make(self) -> None:
        make_key(self.key, "coldstart-lab")
        cgroups.make(cgroups.HELPERS)
        for segment in self._segments.values():
            network.add_switch(segment)
        network.add_control()
        public_key = self.key.with_suffix(".pub").read_text().strip()
        for node in self.nodes.values():
            node.create(public_key)
            node.wire()
        self.write_access()
        self._start()

    def _start(self) -> None:
        nodes = list(self.nodes.values())
        for some in (nodes[begin : begin + _AT_ONCE] for begin in range(0, len(nodes), _AT_ONCE)):
            for node, starting in [(node, node.start()) for node in some]:
                node.started(starting)
        for node in nodes:
            node.wait_ready()

    def _entry(self, node: Node) -> inventory.Entry:
        shape = node.shape
        jump = self.nodes.get(shape.behind)
        at = f"{jump.shape.user}@{jump.address}" if jump else ""
        return inventory.Entry(shape.name, shape.site, node.address, shape.user, shape.behind, at)


def _claim(folder: Path) -> None:
    """This machine, for a lab in this folder."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces: it needs root")
    for command in COMMANDS:
        if not shutil.which(command):
            raise LabError(f"the lab needs {command}; next: scripts/setup.sh dev")
    if not cgroups.hierarchies():
        raise LabError("the lab needs control groups of version 1, and this machine has none")
    try:
        fd = os.open(STATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise LabError(f"there is a lab in {STATE.read_text()}; next: make lab-down") from None
    with os.fdopen(fd, "w") as file:
        file.write(str(folder))
    removal.remove(folder, but_state=True)
    folder.mkdir(parents=True)


def _segments(fleet: Sequence[Shape]) -> dict[str, Segment]:
    """By the name of the jump host in front of it; "" is the lab's own."""
    jumps = dict.fromkeys(shape.behind for shape in fleet if shape.behind)
    behind = {name: Segment(number, f"{network.PREFIX}{name}-lan") for number, name in enumerate(jumps, 1)}
    return {"": LAN, **behind}


def _plugs(fleet: Sequence[Shape], segments: dict[str, Segment]) -> dict[str, list[Plug]]:
    """Every node's own first, then a jump host's second one."""
    found: dict[str, list[Plug]] = {}
    for host, shape in enumerate(fleet, 1):
        netns = network.PREFIX + shape.name
        found[shape.name] = [Plug(segments[shape.behind], netns, host)]
        if shape.name in segments:
            found[shape.name].append(Plug(segments[shape.name], netns, CONTROLLER, "eth1"))
    return found


def attach(fleet: Sequence[Shape] = shapes.DEFAULT) -> Lab:
    """To the lab that another process has made of the same shapes."""
    if not STATE.exists():
        raise LabError("there is no lab here; next: make lab")
    lab = Lab(Path(STATE.read_text()), fleet)
    for node in lab.nodes.values():
        node.attach()
    return lab
