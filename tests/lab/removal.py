"""Removing a lab: everything that bears its names, also of one that died half made, or whose folder is gone.

Whoever is in a lab's control groups or network namespaces belongs to it, whatever it is; nothing else is ever killed.
Mounts go with the nodes' namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from lab import cgroups, names, network
from lab.names import Names
from lab.waiting import until

MARK = ".coldstart-lab"  # a file in a lab's folder


def remove(mine: Names, folder: Path) -> None:
    """As often as one likes. Returns when nothing is left."""
    until(lambda: not kill(pids(mine), signal.SIGKILL), "end of the lab's processes")
    for name in filter(mine.owns, network.namespaces()):
        network.call("ip", "netns", "del", name)
    if mine.control in network.links():
        network.batch("", [f"link del {mine.control}"])
    cgroups.remove(mine.group)
    if folder.exists():
        shutil.rmtree(folder)
    names.give_back(mine)


def remove_orphans() -> None:
    """Labs whose owner died without taking them down."""
    for state in names.states():
        if state.is_orphan:
            remove(state.names, state.folder)


def forget(folder: Path) -> None:
    """The folder of a lab that ended with this machine's last shutdown; no other folder."""
    if (folder / MARK).exists() and not names.find(folder):
        shutil.rmtree(folder)


def pids(mine: Names) -> list[int]:
    """A lab's processes."""
    inside = [pid for name in network.namespaces() if mine.owns(name) for pid in network.pids(name)]
    return sorted({*cgroups.pids(mine.group), *inside})


def remains(mine: Names, folder: Path) -> list[str]:
    """What there is of a lab, in words."""
    found = [f"process {pid}" for pid in pids(mine)]
    found += [f"namespace {name}" for name in network.namespaces() if mine.owns(name)]
    found += [f"interface {name}" for name in network.links() if name == mine.control]
    found += [f"cgroup {path}" for path in cgroups.remains(mine.group)]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return found + [f"file {path}" for path in (folder, mine.state) if path.exists()]


def kill(whom: Sequence[int], number: int) -> int:
    """How many these were."""
    for pid in whom:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return len(whom)
