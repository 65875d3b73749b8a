"""A node's control groups: `cslab/NODE` in every hierarchy of version 1.

They are also the index of what belongs to the lab: whatever runs in a node is in its groups, containers too, and so
are the lab's own helpers. Nothing needs to be written down, and nothing is forgotten by a lab that dies half made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lab.shapes import Shape

ROOT = Path("/sys/fs/cgroup")
NAME = "cslab"
HELPERS = "helpers"  # the group of delay lines
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_PERIOD_US = 100_000
_REMOVAL_LIMIT_S = 5.0


def hierarchies() -> list[str]:
    """Those of version 1 that this machine has. Where one name leads to another (cpu -> cpu,cpuacct), both stand."""
    return [name for name in CONTROLLERS if (ROOT / name / "cgroup.procs").exists()]


def make(name: str) -> None:
    """Groups without limits."""
    for controller in hierarchies():
        for folder in (ROOT / controller / NAME, ROOT / controller / NAME / name):
            folder.mkdir(exist_ok=True)
            if controller == "cpuset":
                _inherit_cpuset(folder)


def limit(shape: Shape) -> None:
    """Give a node's groups its limits."""
    if shape.cpus:
        group = ROOT / "cpu" / NAME / shape.name
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(shape.cpus * _PERIOD_US)))
    if shape.memory_bytes:
        (ROOT / "memory" / NAME / shape.name / "memory.limit_in_bytes").write_text(str(shape.memory_bytes))


def join(name: str) -> None:
    """This process, and what it starts from now on. Before a cgroup namespace is made: its root is where one stands."""
    for controller in hierarchies():
        (ROOT / controller / NAME / name / "cgroup.procs").write_text("0")


def pids(name: str = "") -> list[int]:
    """Every process of a node, or of the lab; of some other lab's, nothing."""
    found: set[int] = set()
    for controller in hierarchies():
        for folder in _folders(ROOT / controller / NAME / name):
            found.update(_members(folder))
    return sorted(found)


def remove(name: str = "") -> None:
    """The groups of a node, or all; those of containers are below them. What just died may hold one for a moment."""
    for controller in hierarchies():
        for folder in _folders(ROOT / controller / NAME / name):
            _rmdir(folder)


def remains() -> list[str]:
    return [str(ROOT / name / NAME) for name in hierarchies() if (ROOT / name / NAME).exists()]


def _inherit_cpuset(folder: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        (folder / name).write_text((folder.parent / name).read_text())


def _folders(top: Path) -> Iterator[Path]:
    """Innermost first."""
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _members(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _rmdir(folder: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_LIMIT_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
