"""What a node is like, as data: a test makes the fleet it needs from these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST_NODES = 250
PASSWORD = "raspberry"  # what `sudo: password` asks for
NO_PYTHON = ("/usr/bin/python3*", "/usr/local/bin/python3*")
NO_DOCKER = (
    "/usr/bin/docker*",
    "/usr/local/bin/docker*",
    "/usr/sbin/dockerd",
    "/usr/bin/containerd*",
    "/usr/*bin/runc",
)
NO_QEMU = ("/usr/bin/qemu-system-*",)
_NOT_OF_MACHINES = ("uptime_s", "without", "shows", "user", "sudo", "groups", "login_shell", "rc")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Shape:
    """One node. The defaults: as fast as this machine, its own SSH server, no engine running."""

    name: str
    site: str = "cloud"  # which kind of place; also its group in the inventory

    # A machine of its own, emulated, instead of namespaces on this one's kernel: lab.guest. `cpus` are whole processors
    # then, and `memory_bytes` is all it has; 2 and 1 GiB if nothing is said, as a small Raspberry Pi 4.
    machine: Literal["", "aarch64"] = ""

    # The way to it. Delays are one way: up from the node, down to it. Any of them, or `line`, gives the node a delay
    # line, a process that every frame passes through; without one its link is a plain pair of interfaces.
    up_ms: float = 0.0
    down_ms: float = 0.0
    jitter_ms: float = 0.0  # a delay is uniform in +- this; frames never overtake each other
    loss: float = 0.0  # 0..1, of the frames of either direction
    line: bool = False  # so that a delay can be given later
    mbit: float = 0.0  # of either direction; 0: as fast as it goes
    behind: str = ""  # the node that is the only way to this one: a jump host

    # What it has.
    cpus: float = 0.0  # share of one core; 0: all there are
    memory_bytes: int = 0  # what it writes to its root file system is in it; 0: no limit
    uptime_s: int | None = None  # CLOCK_MONOTONIC and CLOCK_BOOTTIME at its start; None: this machine's own
    engine: bool = False  # a Docker engine runs
    without: tuple[str, ...] = ()  # globs of files that are not there: NO_PYTHON, NO_DOCKER
    shows: tuple[str, ...] = ()  # folders of this machine that are there, read-only, though /tmp and /home are its own

    # Who may come in, and what meets them.
    user: str = "root"
    sudo: Literal["none", "free", "password"] = "none"  # of a user other than root
    groups: tuple[str, ...] = ()  # that user's: ("docker",)
    login_shell: str = "/bin/bash"
    rc: str = ""  # a line in every shell's start-up file: echo welcome
    sshd: tuple[str, ...] = ()  # lines of its sshd_config: MaxSessions 1
    authorized: tuple[str, ...] = ()  # public keys beside the lab's own

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a node's name: letters, digits, -")
        strange = [name for name in _NOT_OF_MACHINES if getattr(self, name) != getattr(Shape, name)]
        if self.machine and strange:
            raise ValueError(f"{self.name} is a machine of its own: it has no {', '.join(strange)}")
        if self.machine and self.cpus != int(self.cpus):
            raise ValueError(f"{self.name} is a machine of its own: it has whole processors, not {self.cpus:g}")

    @property
    def has_line(self) -> bool:
        return self.line or any((self.up_ms, self.down_ms, self.jitter_ms, self.loss))

    @property
    def processors(self) -> int:
        """Of a machine of its own."""
        return int(self.cpus) or 2

    @property
    def ram_bytes(self) -> int:
        """Of a machine of its own."""
        return self.memory_bytes or 1 << 30

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


DEFAULT = (
    Shape("cloud-1", "cloud", engine=True),
    Shape("laptop-1", "laptop", up_ms=2, down_ms=2, jitter_ms=1, engine=True),
    Shape(
        "edge-1",
        "edge",
        up_ms=8,
        down_ms=5,
        jitter_ms=2,
        mbit=20,
        cpus=0.5,
        memory_bytes=1 << 30,
        uptime_s=40 * 86_400,
        engine=True,
    ),
)


# Beside them, for whoever asks: it takes longer to start than all of them.
PI = Shape("pi-4", "edge", machine="aarch64", up_ms=8, down_ms=5, jitter_ms=2, mbit=20, engine=True)


def plain(count: int) -> tuple[Shape, ...]:
    """As many nodes as that, nothing special about them, at two sites."""
    return tuple(Shape(f"n{index}", ("cloud", "edge")[index % 2]) for index in range(1, count + 1))


def check(shapes: Sequence[Shape]) -> None:
    """ValueError for a fleet that cannot be."""
    names = [shape.name for shape in shapes]
    machines = [shape.name for shape in shapes if shape.machine]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two nodes {name!r}")
    for shape in shapes:
        if shape.behind and shape.behind not in names[: names.index(shape.name)]:
            raise ValueError(f"{shape.name} is behind {shape.behind!r}, and no node before it has that name")
        if shape.behind in machines:
            raise ValueError(f"{shape.name} is behind {shape.behind!r}, a machine of its own: those are no jump hosts")
    if len(names) > MOST_NODES:
        raise ValueError(f"{len(names)} nodes: {MOST_NODES} fit into the lab's network")
