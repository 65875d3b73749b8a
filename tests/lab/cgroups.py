"""A node's control groups: `cslab/NUMBER/NODE`, in every hierarchy of version 1 or in the one of version 2.

They are also the index of what belongs to a lab: whatever runs in a node is in its groups, containers too, and so are
the lab's own helpers. Nothing needs to be written down, and nothing is forgotten by a lab that dies half made.

In version 2 a group either holds processes or shares its resources out to groups below it. An engine makes such groups,
so a node's own processes are one further down, in `LEAF`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lab.shapes import Shape

ROOT = Path("/sys/fs/cgroup")
HELPERS = "helpers.lines"  # no node has such a name
LEAF = "node.init"
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "io")
_PERIOD_US = 100_000
_REMOVAL_LIMIT_S = 5.0


class NoController(Exception):
    """A limit that this machine's kernel, or whoever has its control groups, does not let us set."""


def is_v2() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[str]:
    """Those of version 1 that this machine has. Where one name leads to another (cpu -> cpu,cpuacct), both stand."""
    return [name for name in CONTROLLERS if (ROOT / name / "cgroup.procs").exists()]


def roots() -> list[Path]:
    """Where groups begin."""
    return [ROOT] if is_v2() else [ROOT / name for name in hierarchies()]


def leaf(group: str) -> str:
    """Where a node's own processes are."""
    return f"{group}/{LEAF}" if is_v2() else group


def make(group: str) -> None:
    """Groups without limits, and those above them."""
    parts = Path(group).parts
    for root in roots():
        for depth in range(1, len(parts) + 1):
            folder = Path(root, *parts[:depth])
            if is_v2():
                _share_out(folder.parent)
            folder.mkdir(exist_ok=True)
            if root.name == "cpuset":
                _inherit_cpuset(folder)


def limit(group: str, shape: Shape) -> None:
    quota_us = int(shape.cpus * _PERIOD_US)
    if shape.cpus and is_v2():
        _write(ROOT / group / "cpu.max", f"{quota_us} {_PERIOD_US}")
    elif shape.cpus:
        _write(ROOT / "cpu" / group / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(ROOT / "cpu" / group / "cpu.cfs_quota_us", str(quota_us))
    if shape.memory_bytes:
        name = f"{group}/memory.max" if is_v2() else f"memory/{group}/memory.limit_in_bytes"
        _write(ROOT / name, str(shape.memory_bytes))


def join(group: str) -> None:
    """This process, and what it starts from now on. Before a cgroup namespace is made: its root is where one stands."""
    for path in doors(group):
        path.write_text("0")


def doors(group: str) -> list[Path]:
    """Files that whoever wants to join writes 0 to."""
    return [root / group / "cgroup.procs" for root in roots()]


def pids(group: str) -> list[int]:
    """Every process in a group and below."""
    found: set[int] = set()
    for root in roots():
        for folder in _folders(root / group):
            found.update(_members(folder))
    return sorted(found)


def remove(group: str) -> None:
    """A group and those below it, which containers are in; then those above it that are empty."""
    for root in roots():
        for folder in _folders(root / group):
            _rmdir(folder)
        for above in Path(group).parents[:-1]:
            try:
                (root / above).rmdir()
            except OSError:  # not there, or others are in it
                break


def remains(group: str) -> list[str]:
    return [str(root / group) for root in roots() if (root / group).exists()]


def _share_out(folder: Path) -> None:
    """What there is to the groups below (version 2). What is shared out already is not touched."""
    wanted = set(CONTROLLERS) & set((folder / "cgroup.controllers").read_text().split())
    missing = wanted - set((folder / "cgroup.subtree_control").read_text().split())
    if missing:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(missing)))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise NoController(f"{path}: {error.strerror}") from None


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
