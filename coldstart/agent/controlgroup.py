"""What the control groups that this process is in allow it, and those above them: the tightest limit is the one felt.

Only what is visible counts: in a container the groups above its own are not, and their limits are not known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from coldstart.agent import surveyparse

ROOT = "/sys/fs/cgroup"


def limits(root: str = ROOT, own: str = "/proc/self/cgroup") -> dict[str, str]:
    """cpu_quota: cores; cpu_throttled_periods: how often it was used up; memory_limit_bytes. '' where there is none."""
    text = _read(own)
    cpu = list(_folders(root, "cpu", surveyparse.parse_cpu_group(text)))
    memory = list(_folders(root, "memory", surveyparse.parse_memory_group(text)))
    quotas = [surveyparse.parse_cpu_quota(_quota(folder)) for folder in cpu]
    throttled = [surveyparse.parse_throttled_periods(_read(f"{folder}/cpu.stat")) for folder in cpu]
    room = [surveyparse.parse_memory_limit(_limit(folder)) for folder in memory]
    return {
        "cpu_quota": min(filter(None, quotas), key=float, default=""),
        "cpu_throttled_periods": max(filter(None, throttled), key=int, default=""),
        "memory_limit_bytes": min(filter(None, room), key=int, default=""),
    }


def _folders(root: str, controller: str, path: Sequence[str]) -> Iterator[str]:
    """From the root's down to our own; a controller of version 1 has a hierarchy of its own."""
    top = root if os.path.exists(f"{root}/cgroup.controllers") else f"{root}/{controller}"
    for depth in range(len(path) + 1):
        yield os.path.join(top, *path[:depth])


def _quota(folder: str) -> str:
    both = (_read(f"{folder}/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return _read(f"{folder}/cpu.max") or " ".join(both)


def _limit(folder: str) -> str:
    return _read(f"{folder}/memory.max") or _read(f"{folder}/memory.limit_in_bytes")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
