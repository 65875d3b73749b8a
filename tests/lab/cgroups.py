"""A node's control groups: `cslab/NUMBER/NODE` in every hierarchy of version 1.

They are also the index of what belongs to a lab: whatever runs in a node is in its groups, containers too, and so are
the lab's own helpers. Nothing needs to be written down, and nothing is forgotten by a lab that dies half made.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lab.shapes import Shape

ROOT = Path("/sys/fs/cgroup")
TOP = "cslab"
HELPERS = "helpers.lines"  # no node has such a name
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_PERIOD_US = 100_000
_REMOVAL_LIMIT_S = 5.0


def hierarchies() -> list[str]:
    """Those of version 1 that this machine has. Where one name leads to another (cpu -> cpu,cpuacct), both stand."""
    return [name for name in CONTROLLERS if (ROOT / name / "cgroup.procs").exists()]


def make(group: str) -> None:
    """Groups without limits, and those above them."""
    parts = Path(group).parts
    for controller in hierarchies():
        for depth in range(1, len(parts) + 1):
            folder = Path(ROOT, controller, *parts[:depth])
            folder.mkdir(exist_ok=True)
            if controller == "cpuset":
                _inherit_cpuset(folder)


def limit(group: str, shape: Shape) -> None:
    if shape.cpus:
        folder = ROOT / "cpu" / group
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(int(shape.cpus * _PERIOD_US)))
    if shape.memory_bytes:
        (ROOT / "memory" / group / "memory.limit_in_bytes").write_text(str(shape.memory_bytes))


def join(group: str) -> None:
    """This process, and what it starts from now on. Before a cgroup namespace is made: its root is where one stands."""
    for controller in hierarchies():
        (ROOT / controller / group / "cgroup.procs").write_text("0")


def pids(group: str) -> list[int]:
    """Every process in a group and below."""
    found: set[int] = set()
    for controller in hierarchies():
        for folder in _folders(ROOT / controller / group):
            found.update(_members(folder))
    return sorted(found)


def remove(group: str) -> None:
    """A group and those below it, which containers are in; then those above it that are empty."""
    for controller in hierarchies():
        for folder in _folders(ROOT / controller / group):
            _rmdir(folder)
        for above in Path(group).parents[:-1]:
            try:
                (ROOT / controller / above).rmdir()
            except OSError:  # not there, or others are in it
                break


def remains(group: str) -> list[str]:
    return [str(ROOT / name / group) for name in hierarchies() if (ROOT / name / group).exists()]


def _inherit_cpuset(folder: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
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
    """What just died may hold one for a moment."""
    deadline = time.monotonic() + _REMOVAL_LIMIT_S
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
