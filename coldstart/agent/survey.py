"""What `check` asks a node: everything that decides what can be measured there, and how well. Thin readers.

Nothing is changed, no engine is started, nothing waits for long: an engine that hangs is `silent`. What cannot be read
is absent. The texts are understood in `surveyparse.py`, and judged on the controller (`diagnosis.py`).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping

from coldstart.agent import engine, facts, floors, surveyparse
from coldstart.agent.dockerapi import ApiError, Engine, negotiated, socket_path

PATIENCE_S = 3.0
PROGRAMS = ("dockerd", "podman", "crun", "runc", "qemu-system-x86_64", "qemu-system-aarch64", "sudo")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_BOOT_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
_NET_ADMIN = 12
_TIMEX_BYTES = 256  # larger than struct timex on any architecture


def survey(settings: Mapping[str, str], cache: str) -> dict[str, str]:
    """The node's facts, as texts."""
    memory_bytes, disk_bytes = floors.available(cache)
    found = {
        **facts.facts(),
        **_programs(),
        **_user(),
        **_docker(settings),
        **_machine(),
        "userland_bits": str(struct.calcsize("P") * 8),
        "memory_available_bytes": str(memory_bytes),
        "disk_free_bytes": str(disk_bytes),
        "load": f"{os.getloadavg()[0]:.2f}",
        "clock": _clock(),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource").strip(),
        "realtime_ns": str(time.time_ns()),
    }
    return {name: value for name, value in found.items() if value}


def _programs() -> dict[str, str]:
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    return {name: shutil.which(name, path=path) or "" for name in PROGRAMS}


def _user() -> dict[str, str]:
    names = {entry.gr_gid: entry.gr_name for entry in grp.getgrall()}
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    listed = [entry.gr_name for entry in grp.getgrall() if name in entry.gr_mem]
    return {
        "user_name": name,
        "groups": ",".join(sorted(names.get(gid, str(gid)) for gid in os.getgroups())),
        "groups_at_next_login": ",".join(sorted(listed)),
        "sudo_works": _sudo(),
        "net_admin": "yes" if surveyparse.parse_capabilities(_read("/proc/self/status")) >> _NET_ADMIN & 1 else "no",
        "tun": "yes" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "no",
    }


def _sudo() -> str:
    """One call, and only if there is something to gain by it."""
    if os.geteuid() == 0 or shutil.which("sudo") is None:
        return ""
    try:
        done = subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return "no"
    return "yes" if done.returncode == 0 else "no"


def _docker(settings: Mapping[str, str]) -> dict[str, str]:
    try:
        path = socket_path(settings.get("coldstart_docker_host", ""), os.environ)
    except ValueError as error:
        return {"docker": "refused", "docker_reason": str(error)}
    found = {"docker_socket": path, "service_manager": "yes" if engine.managed() else ""}
    if not os.path.exists(path):
        return {**found, "docker": "absent"}
    if not os.access(path, os.W_OK):
        return {**found, "docker": "denied"}
    try:
        with Engine(path, timeout_s=PATIENCE_S) as asked:
            version = asked.call("GET", "/version")
        return {**found, "docker": "answers", "docker_version": version["Version"], "docker_api": negotiated(version)}
    except (ApiError, ValueError, KeyError) as error:
        return {**found, "docker": "silent", "docker_reason": str(error)}


def _machine() -> dict[str, str]:
    memory = surveyparse.parse_memory_controller(_read("/proc/cgroups"), _read("/sys/fs/cgroup/cgroup.controllers"))
    flags = facts.cpu_flags()
    return {
        "board": _read("/proc/device-tree/model").rstrip("\0\n"),
        "os_id": surveyparse.parse_os_ids(_read("/etc/os-release")),
        "memory_cgroup": memory,
        "boot_file": next((path for path in _BOOT_FILES if os.path.exists(path)), ""),
        "kvm_device": _kvm(),
        "cpu_can_virtualise": "yes" if {"vmx", "svm"} & set(flags) else "",
        "throttled": surveyparse.parse_throttled(_read("/sys/devices/platform/soc/soc:firmware/get_throttled")),
        "cpu_quota": _cpu_quota(),
    }


def _kvm() -> str:
    if not os.path.exists("/dev/kvm"):
        return "absent"
    return "usable" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "denied"


def _cpu_quota() -> str:
    """The smallest share of cores that our control group, or one above it, may use."""
    path, found = surveyparse.parse_cpu_group(_read("/proc/self/cgroup")), []
    root = "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "/sys/fs/cgroup/cpu"
    for depth in range(len(path) + 1):
        folder = os.path.join(root, *path[:depth])
        both = f"{_read(folder + '/cpu.cfs_quota_us').strip()} {_read(folder + '/cpu.cfs_period_us').strip()}"
        found.append(surveyparse.parse_cpu_quota(_read(folder + "/cpu.max") or both))
    return min(filter(None, found), key=float, default="")


def _clock() -> str:
    """adjtimex(2) that asks for nothing: whether somebody keeps this clock synchronised."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return ""
    return "" if state < 0 else "unsynchronised" if state == 5 else "synchronised"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
