"""The lab: a switch, and nodes on it.

Several may exist at a time, each with a folder and a number of its own: the folder holds all of its state, its names
and addresses follow from the number. docs/lab.md tells how to use it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lab import access, cgroups, guest, names, network, nodefiles, removal, shapes
from lab.capture import Capture
from lab.cgroups import NoController
from lab.guest import Guest
from lab.names import CONTROLLER, Names
from lab.network import Plug, Segment
from lab.node import Node
from lab.packages import PackagesError
from lab.shapes import Shape

FOLDER = Path("/var/tmp/coldstart-lab")
COMMANDS = ("/usr/sbin/sshd", "ssh-keygen", "ip", "tc", "nsenter")
_AT_ONCE = 8  # nodes that start at the same time


class LabError(Exception):
    """No lab can be had here, and why."""


class Lab:
    """`with Lab(folder, shapes) as lab:` or up() and down(). folder: made by up, removed by down; nodes: by name."""

    def __init__(self, folder: Path = FOLDER, fleet: Sequence[Shape] = shapes.DEFAULT) -> None:
        shapes.check(fleet)
        self.folder = folder.absolute()
        self.shapes = tuple(fleet)
        self.nodes: dict[str, Node] = {}
        self._segments: list[Segment] = []
        self._names: Names | None = None

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
        self.up(owner=os.getpid())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def up(self, owner: int = 0) -> None:
        """All nodes answer when it returns; LabError, and nothing is left, if that cannot be. owner: a process; when it
        has died, the next lab or `make lab-down` removes this one."""
        _check_here(self.shapes)
        self._settle(_claim(self.folder, owner))
        try:
            self._make()
        except (NoController, PackagesError) as error:
            self.down()
            raise LabError(str(error)) from None
        except BaseException:
            self.down()
            raise

    def attach(self) -> Lab:
        """To the lab of these shapes that another process has made in this folder."""
        state = names.find(self.folder)
        if not state:
            raise LabError(f"there is no lab in {self.folder}; next: make lab")
        self._settle(state.names)
        for node in self.nodes.values():
            node.attach()
        return self

    def down(self) -> None:
        """Nothing is left of it when it returns. As often as one likes."""
        if self._names:
            removal.remove(self._names, self.folder)

    def remains(self) -> list[str]:
        """What there is of it, in words."""
        return removal.remains(self._names, self.folder) if self._names else []

    def capture(self, *at: str) -> Capture:
        """Packets as they pass these nodes' interfaces; without names, the switch of the lab."""
        return Capture({name: self.nodes[name].netns for name in at} or {"": self._segments[0].netns})

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
        self.inventory.write_text(access.inventory(self.folder, entries))
        self.ssh_config.write_text(access.ssh_config(self.folder, entries))

    def _settle(self, mine: Names) -> None:
        self._names = mine
        segments = _segments(self.shapes, mine)
        plugs = _plugs(self.shapes, segments, mine)
        hosts = "".join(f"{plug[0].address} {name}\n" for name, plug in plugs.items())
        self._segments = list(segments.values())
        for shape in self.shapes:
            kind = Guest if shape.machine else Node
            self.nodes[shape.name] = kind(shape, self.folder / shape.name, plugs[shape.name], hosts)

    def _make(self) -> None:
        assert self._names
        nodefiles.make_key(self.key, "coldstart-lab")
        cgroups.make(f"{self._names.group}/{cgroups.HELPERS}")
        for segment in self._segments:
            network.add_switch(segment)
        network.add_control(self._segments[0])
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

    def _entry(self, node: Node) -> access.Entry:
        shape = node.shape
        return access.Entry(shape.name, shape.site, node.address, shape.user, shape.behind, self._way(shape.behind))

    def _way(self, jump: str) -> str:
        """Through one jump host or several, as `ssh -J` reads it."""
        if not jump:
            return ""
        node = self.nodes[jump]
        before = self._way(node.shape.behind)
        return f"{before}{',' if before else ''}{node.shape.user}@{node.address}"


def _check_here(fleet: Sequence[Shape]) -> None:
    """Whether this machine has what these need."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces: it needs root")
    for command in COMMANDS + (guest.COMMANDS if any(shape.machine for shape in fleet) else ()):
        if not shutil.which(command):
            raise LabError(f"the lab needs {command}; next: scripts/setup.sh dev")
    if not cgroups.roots():
        raise LabError(f"the lab needs control groups, and there are none in {cgroups.ROOT}")


def _claim(folder: Path, owner: int) -> Names:
    """A number, and a new folder."""
    removal.remove_orphans()
    removal.forget(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not names.find(folder):
            raise LabError(f"{folder} is there, and not a lab's; next: choose another") from None
        raise LabError(f"there is a lab in {folder}; next: make lab-down") from None
    (folder / removal.MARK).touch()
    mine = names.take(folder, owner)
    if not mine:
        removal.forget(folder)
        raise LabError(f"there are {names.MOST_LABS} labs on this machine; next: python -m lab down --all")
    return mine


def _segments(fleet: Sequence[Shape], mine: Names) -> dict[str, Segment]:
    """By the name of the jump host in front of it; "" is the lab's own."""
    jumps = dict.fromkeys(["", *(shape.behind for shape in fleet)])
    return {jump: Segment(mine, number, mine.switch(jump)) for number, jump in enumerate(jumps)}


def _plugs(fleet: Sequence[Shape], segments: dict[str, Segment], mine: Names) -> dict[str, list[Plug]]:
    """Every node's own first, then a jump host's second one."""
    found: dict[str, list[Plug]] = {}
    for host, shape in enumerate(fleet, 1):
        netns = mine.netns(shape.name)
        found[shape.name] = [Plug(segments[shape.behind], netns, host)]
        if shape.name in segments:
            found[shape.name].append(Plug(segments[shape.name], netns, CONTROLLER, "eth1"))
    return found
