"""What kind of machine a node is: thin readers of /proc and /sys, and pure parsers of their texts."""

from __future__ import annotations

import os
import platform
import re


def facts() -> dict[str, str]:
    """The node's fingerprint, as texts; what cannot be read is absent."""
    found = {
        "arch": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "cpu_model": parse_cpu_model(read("/proc/cpuinfo")),
        "memory_bytes": parse_memory_bytes(read("/proc/meminfo")),
        "os": parse_os_name(read("/etc/os-release")),
        "cgroup": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        "virtual": "yes" if "hypervisor" in parse_cpu_flags(read("/proc/cpuinfo")) else "",
        "kvm": "usable" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no",
        "user": "root" if os.geteuid() == 0 else "user",
    }
    return {name: value for name, value in found.items() if value}


def parse_cpu_model(text: str) -> str:
    """The model's name; ARM boards name the board in `Model`, x86 the processor in `model name`."""
    for key in ("model name", "Model", "Hardware"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match.group(1).strip()
    return ""


def cpu_flags() -> tuple[str, ...]:
    """This machine's."""
    return parse_cpu_flags(read("/proc/cpuinfo"))


def parse_cpu_flags(text: str) -> tuple[str, ...]:
    """The first processor's feature flags."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return tuple(match.group(1).split()) if match else ()


def parse_memory_bytes(text: str) -> str:
    """MemTotal."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", text, re.MULTILINE)
    return str(int(match.group(1)) * 1024) if match else ""


def parse_os_name(text: str) -> str:
    """PRETTY_NAME, unquoted."""
    match = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
    return match.group(1).strip().strip("\"'") if match else ""


def parse_steal_ticks(text: str) -> int | None:
    """Clock ticks all CPUs together were stolen by the hypervisor, of the text of /proc/stat."""
    match = re.match(r"cpu\s+(.+)$", text, re.MULTILINE)
    fields = match.group(1).split() if match else []
    return int(fields[7]) if len(fields) > 7 else None


def steal_ticks() -> int:
    """As above, now; 0 where the kernel does not say."""
    return parse_steal_ticks(read("/proc/stat")) or 0


def read(path: str) -> str:
    """A text of the kernel's or the system's; '' where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
