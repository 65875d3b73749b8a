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
_NO_LIMIT_BYTES = 1 << 42  # version 1 says LONG_MAX in pages for `none`: 8 TiB on 32-bit machines, more on others


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
    return _group(text, "cpu")


def parse_memory_group(text: str) -> tuple[str, ...]:
    """The same in the memory hierarchy."""
    return _group(text, "memory")


def _group(text: str, controller: str) -> tuple[str, ...]:
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or controller in controllers.split(","):
            return tuple(part for part in path.split("/") if part)
    return ()


def parse_memory_limit(text: str) -> str:
    """Bytes, of memory.max or memory.limit_in_bytes; '' for no limit: `max`, or all that version 1 can count."""
    match = re.fullmatch(r"\d+", text.strip())
    return match.group() if match and int(match.group()) < _NO_LIMIT_BYTES else ""


def parse_throttled_periods(text: str) -> str:
    """How often a quota was used up, of cpu.stat; '' for never."""
    match = re.search(r"^nr_throttled ([1-9]\d*)$", text, re.MULTILINE)
    return match.group(1) if match else ""


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


def parse_thermal_throttles(text: str) -> str:
    """How often x86 cores were slowed by heat since the machine started, of all cores' counters; '' for never."""
    return str(sum(int(word) for word in text.split() if word.isdigit()) or "")


def parse_uptime_s(text: str) -> str:
    """Whole seconds, of /proc/uptime."""
    match = re.match(r"\d+", text)
    return match.group() if match else ""


def parse_sudo(text: str) -> str:
    """`password` if that is all `sudo -n` lacks, in the words of sudo or sudo-rs."""
    return "password" if re.search(r"password is required|authentication (?:is )?required", text) else ""
