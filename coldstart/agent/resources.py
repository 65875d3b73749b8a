"""What an instance holds: memory by named definitions, and everything that must be gone before it counts as reclaimed.

pss: proportional set size of all its processes, helpers (shim, VMM, proxy) included. cgroup_current, cgroup_peak: its
own control group's figures (page cache it touched is in them, helpers are not). They answer different questions and
are never mixed; what may not be read (another user's process) is left out, not guessed.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

CGROUP_ROOT = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Footprint:
    """processes: (pid, start time in clock ticks: tells a reused pid); cgroups: directories; interfaces: names."""

    processes: tuple[tuple[int, str], ...] = ()
    cgroups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


def footprint(pids: Sequence[int], interfaces: Sequence[str]) -> Footprint:
    """What these processes hold now. A control group that others are in as well is not theirs: a shim is in its
    engine's, a bare process in this agent's; neither would ever go away."""
    cgroups = dict.fromkeys(path for pid in pids for path in cgroups_of(str(pid)))
    exclusive = tuple(path for path in cgroups if set(_members(path)) <= set(pids))
    processes = [(pid, started) for pid in pids for started in [_started(pid)] if started is not None]
    return Footprint(tuple(processes), exclusive, tuple(interfaces))


def remains(held: Footprint) -> list[str]:
    """What is still there, in words."""
    left = [f"process {pid}" for pid, started in held.processes if _started(pid) == started]
    left += [f"cgroup {path}" for path in held.cgroups if os.path.isdir(path)]
    if held.interfaces:
        present = {name for _, name in socket.if_nameindex()}
        left += [f"interface {name}" for name in held.interfaces if name in present]
    return left


def memory(held: Footprint) -> dict[str, int]:
    """Bytes by definition; a definition that cannot be read is absent."""
    figures = {
        "pss": _pss([pid for pid, _ in held.processes]),
        "cgroup_current": _cgroup_figure(held.cgroups, ("memory.current", "memory.usage_in_bytes")),
        "cgroup_peak": _cgroup_figure(held.cgroups, ("memory.peak", "memory.max_usage_in_bytes")),
    }
    return {name: value for name, value in figures.items() if value is not None}


def parse_pss(text: str) -> int:
    """Bytes, of the text of /proc/PID/smaps_rollup."""
    match = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def parse_start_time(text: str) -> str:
    """Field 22 of /proc/PID/stat; the process name before it may hold spaces and parentheses. A zombie has none."""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def parse_cgroups(text: str) -> list[tuple[str, str]]:
    """(controllers, path) of each line of /proc/PID/cgroup that has a group of its own."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return [(parts[1], parts[2]) for parts in lines if len(parts) == 3 and parts[2] != "/"]


def cgroups_of(pid: str) -> list[str]:
    """The directories of a process's control groups, version 1 and 2 alike."""
    text = _read(f"/proc/{pid}/cgroup")
    found = []
    for controllers, path in parse_cgroups(text or ""):
        mounts = [controllers, controllers.replace("name=", "")] if controllers else ["", "unified"]
        found += [d for d in (os.path.join(CGROUP_ROOT, m, path.lstrip("/")) for m in mounts) if os.path.isdir(d)][:1]
    return found


def _members(cgroup: str) -> list[int]:
    return [int(text) for text in (_read(os.path.join(cgroup, "cgroup.procs")) or "").split()]


def _started(pid: int) -> str | None:
    text = _read(f"/proc/{pid}/stat")
    return (parse_start_time(text) or None) if text else None


def _pss(pids: Sequence[int]) -> int | None:
    """None if any is unreadable: a part of the sum is not the sum."""
    texts = [_read(f"/proc/{pid}/smaps_rollup") for pid in pids]
    if not texts or not all(texts):
        return None
    return sum(parse_pss(text) for text in texts if text)


def _cgroup_figure(cgroups: Sequence[str], names: Sequence[str]) -> int | None:
    for text in (_read(os.path.join(path, name)) for path in cgroups for name in names):
        if text and text.strip().isdigit():
            return int(text)
    return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
