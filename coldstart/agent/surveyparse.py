"""Texts of the kernel and the system that `survey` reads, understood. Pure; every parser has a recorded case."""

from __future__ import annotations

import re

# Bits of the Raspberry Pi firmware's get_throttled: now, and since it started.
_THROTTLED = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage before",
    17: "frequency capped before",
    18: "throttled before",
    19: "soft temperature limit before",
}


def parse_capabilities(text: str) -> int:
    """The effective set, of the text of /proc/self/status."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return int(match.group(1), 16) if match else 0


def parse_memory_controller(cgroups: str, controllers: str = "") -> str:
    """`on` or `off`; of /proc/cgroups and, with control groups of version 2, cgroup.controllers."""
    if controllers:
        return "on" if "memory" in controllers.split() else "off"
    match = re.search(r"^memory\s+\d+\s+\d+\s+(\d)$", cgroups, re.MULTILINE)
    return {"1": "on", "0": "off"}.get(match.group(1), "") if match else ""


def parse_throttled(text: str) -> str:
    """What the firmware of a Raspberry Pi complains of, in words; '' if of nothing. The text is hex."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", text.strip())
    bits = int(match.group(1), 16) if match else 0
    return ", ".join(words for bit, words in _THROTTLED.items() if bits >> bit & 1)


def parse_cpu_group(text: str) -> tuple[str, ...]:
    """The path of a process's group in the cpu hierarchy, or in the one of version 2, of /proc/self/cgroup."""
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "cpu" in controllers.split(","):
            return tuple(part for part in path.split("/") if part)
    return ()


def parse_cpu_quota(text: str) -> str:
    """Cores, of `QUOTA PERIOD` in us, as cpu.max has it and the two files of version 1 together; '' for no limit."""
    match = re.fullmatch(r"(\d+)\s+(\d+)", text.strip())
    if match is None or not int(match.group(2)):
        return ""
    return f"{int(match.group(1)) / int(match.group(2)):g}"


def parse_os_ids(text: str) -> str:
    """ID and ID_LIKE, of /etc/os-release: which commands there are."""
    found = re.findall(r"^(?:ID|ID_LIKE)=(.*)$", text, re.MULTILINE)
    return " ".join(word.strip().strip("\"'") for word in found)
