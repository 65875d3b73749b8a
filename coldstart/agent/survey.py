"""What `check` asks a node: everything that decides what can be measured there, and how well. Thin readers.

Nothing is changed, no engine is started, nothing waits for long: an engine that hangs is `silent`. What cannot be read
is absent. The texts are understood in `surveyparse.py`, and judged on the controller (`diagnosis.py`).
"""

from __future__ import annotations

import ctypes
import glob
import grp
import os
import pwd
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping

from coldstart.agent import controlgroup, engine, facts, floors, surveydocker, surveyparse

PATIENCE_S = 3.0
PROGRAMS = ("dockerd", "podman", "crun", "runc", "qemu-system-x86_64", "qemu-system-aarch64", "sudo")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_BOOT_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
_FIRMWARE = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_THERMAL = "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
_NET_ADMIN = 12
_TIMEX_BYTES = 256  # larger than struct timex on any architecture
_TIMEX = "@Illll"  # modes, offset, freq, maxerror, esterror: how it begins, in the machine's own sizes
_UNSYNCHRONISED = 5  # TIME_ERROR


def survey(settings: Mapping[str, str], cache: str) -> dict[str, str]:
    """The node's facts, as texts."""
    memory_bytes, disk_bytes = floors.available(cache)
    found = {
        **facts.facts(),
        **_programs(),
        **_user(),
        **surveydocker.look(settings),
        **_machine(),
        **controlgroup.limits(),
        **_clock(),
        "userland_bits": str(struct.calcsize("P") * 8),
        "memory_available_bytes": str(memory_bytes),
        "disk_free_bytes": str(disk_bytes),
        "tmp_free_bytes": surveydocker.free_bytes("/tmp"),
        "load": f"{os.getloadavg()[0]:.2f}",
        "clocksource": facts.read("/sys/devices/system/clocksource/clocksource0/current_clocksource").strip(),
        "realtime_ns": str(time.time_ns()),
    }
    return {name: value for name, value in found.items() if value}


def _programs() -> dict[str, str]:
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    return {name: shutil.which(name, path=path) or "" for name in PROGRAMS}


def _user() -> dict[str, str]:
    groups = grp.getgrall()
    names = {group.gr_gid: group.gr_name for group in groups}
    try:
        entry = pwd.getpwuid(os.geteuid())
        name, shell = entry.pw_name, entry.pw_shell
    except KeyError:
        name, shell = str(os.geteuid()), ""
    return {
        "user_name": name,
        "login_shell": shell,
        "groups": ",".join(sorted(names.get(gid, str(gid)) for gid in {os.getegid(), *os.getgroups()})),
        "groups_at_next_login": ",".join(sorted(group.gr_name for group in groups if name in group.gr_mem)),
        "docker_group": "yes" if "docker" in names.values() else "",
        "sudo_works": _sudo(),
        "net_admin": "yes"
        if surveyparse.parse_capabilities(facts.read("/proc/self/status")) >> _NET_ADMIN & 1
        else "no",
        "tun": "yes" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "no",
    }


def _sudo() -> str:
    """`yes`, `password` or `no`. One call, and only if there is something to gain by it: each may send a mail."""
    if os.geteuid() == 0 or shutil.which("sudo") is None:
        return ""
    found: list[str] = []
    surveydocker.within(PATIENCE_S, lambda: found.append(_sudo_says()))
    return found[0] if found else "no"


def _sudo_says() -> str:
    environ = {**os.environ, "LC_ALL": "C"}  # its words are understood
    try:
        done = subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, env=environ)
    except OSError:
        return "no"
    return surveyparse.parse_sudo(done.stderr.decode("utf-8", "replace")) or "no" if done.returncode else "yes"


def _machine() -> dict[str, str]:
    memory = surveyparse.parse_memory_controller(
        facts.read("/proc/cgroups"), facts.read("/sys/fs/cgroup/cgroup.controllers")
    )
    flags = facts.cpu_flags()
    return {
        "board": facts.read("/proc/device-tree/model").rstrip("\0\n"),
        "os_id": surveyparse.parse_os_ids(facts.read("/etc/os-release")),
        "memory_cgroup": memory,
        "boot_file": next((path for path in _BOOT_FILES if os.path.exists(path)), ""),
        "kvm_device": _kvm(),
        "cpu_can_virtualise": "yes" if {"vmx", "svm"} & set(flags) else "",
        "throttled": surveyparse.parse_throttled(facts.read(_FIRMWARE)),
        "thermal_throttles": surveyparse.parse_thermal_throttles("".join(map(facts.read, sorted(glob.glob(_THERMAL))))),
        "uptime_s": surveyparse.parse_uptime_s(facts.read("/proc/uptime")),
        "page_bytes": str(os.sysconf("SC_PAGE_SIZE")),
        "service_manager": "yes" if engine.managed() else "",
    }


def _kvm() -> str:
    if not os.path.exists("/dev/kvm"):
        return "absent"
    return "usable" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "denied"


def _clock() -> dict[str, str]:
    """adjtimex(2) that asks for nothing: whether somebody keeps this clock synchronised, and how well the kernel thinks
    that it is known."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (AttributeError, OSError):
        return {}
    if state < 0:
        return {}
    if state == _UNSYNCHRONISED:
        return {"clock": "unsynchronised"}  # the errors are those of nothing
    *_, most_us, estimated_us = struct.unpack_from(_TIMEX, buffer)
    return {"clock": "synchronised", "clock_maxerror_us": str(most_us), "clock_esterror_us": str(estimated_us)}
