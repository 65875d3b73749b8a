"""Removing a lab: everything that bears its names, also of one that died half made, or whose folder is gone.

Whoever is in the lab's control groups or network namespaces belongs to it, whatever it is; nothing else is ever killed.
Mounts go with the nodes' namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from lab import cgroups, network
from lab.waiting import until

STATE = Path("/run/coldstart-lab")


def remove(folder: Path, *, but_state: bool = False) -> None:
    """As often as one likes. Returns when nothing is left."""
    until(lambda: not _kill_all(), "end of the lab's processes")
    for name in network.namespaces():
        network.call("ip", "netns", "del", name)
    if network.CONTROL in network.links():
        network.batch("", [f"link del {network.CONTROL}"])
    cgroups.remove()
    if folder.exists():
        shutil.rmtree(folder)
    if not but_state:
        STATE.unlink(missing_ok=True)


def pids() -> list[int]:
    """The lab's processes."""
    inside = [pid for name in network.namespaces() for pid in network.pids(name)]
    return sorted({*cgroups.pids(), *inside})


def remains(folder: Path) -> list[str]:
    """What there is of a lab, in words."""
    found = [f"process {pid}" for pid in pids()]
    found += [f"namespace {name}" for name in network.namespaces()]
    found += [f"interface {name}" for name in network.links() if name.startswith(network.PREFIX)]
    found += [f"cgroup {path}" for path in cgroups.remains()]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if _is_ours(line, folder)]
    return found + [f"file {path}" for path in (folder, STATE) if path.exists()]


def _is_ours(mount: str, folder: Path) -> bool:
    source, at = mount.split()[:2]
    return source == network.PREFIX[:-1] or at.startswith(str(folder)) or network.PREFIX in at


def _kill_all() -> bool:
    """Whether there was anybody."""
    found = pids()
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return bool(found)
