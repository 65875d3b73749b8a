"""What a node must keep free: below it no further boot is made, because the next to suffer would be its owner.

The floors come with the greeting, in bytes; a machine's own page cache does not count as taken (MemAvailable).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

MEMORY, DISK = "memory_floor_bytes", "disk_floor_bytes"


def shortage(settings: Mapping[str, str], cache: str) -> str:
    """What is below its floor, in words; '' if nothing is."""
    memory_bytes, disk_bytes = available(cache)
    for name, free_bytes, floor in (("memory", memory_bytes, MEMORY), ("disk", disk_bytes, DISK)):
        if free_bytes < int(settings.get(floor, "0") or 0):
            return f"only {free_bytes >> 20} MiB of {name} are free, the floor is {int(settings[floor]) >> 20} MiB"
    return ""


def available(cache: str) -> tuple[int, int]:
    """(memory, disk where images are kept) in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_bytes = parse_available_bytes(file.read())
    disk = os.statvfs(cache)
    return memory_bytes, disk.f_bavail * disk.f_frsize


def parse_available_bytes(text: str) -> int:
    """MemAvailable, of the text of /proc/meminfo."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0
