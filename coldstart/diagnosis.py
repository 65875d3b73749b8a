"""What stands in the way of measuring on a node, and how to mend it: facts -> findings. Pure.

Each rule is a function of what is known of one node. `problem`: something that a sweep needs there will not work, or a
figure will be wrong; `note`: less can be measured, or less well. Every finding has its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from coldstart.floors import Floors
from coldstart.model import Finding
from coldstart.units import format_bytes, format_duration

PROBLEM, NOTE = "problem", "note"
WALL_NS = 1_000_000_000  # a wall clock that is further off makes logs and certificates unusable
BUSY = 0.5  # load per processor at which figures of others' making appear


@dataclass(frozen=True)
class Known:
    """facts: as `agent/survey.py` has them; runtimes: that the node may run; wall_offset_ns: its wall clock minus the
    controller's, known within wall_bound_ns; swept: what a dead run had left and is removed now."""

    facts: Mapping[str, str]
    floors: Floors
    runtimes: tuple[str, ...]
    wall_offset_ns: int = 0
    wall_bound_ns: int = 0
    swept: tuple[str, ...] = field(default_factory=tuple)

    def fact(self, name: str) -> str:
        return self.facts.get(name, "")

    def package(self, debian: str, fedora: str, alpine: str) -> str:
        """The command that installs something, in this distribution's words."""
        ids = self.fact("os_id").split()
        if {"fedora", "rhel", "centos"} & set(ids):
            return f"sudo dnf install {fedora}"
        return f"sudo apk add {alpine}" if "alpine" in ids else f"sudo apt-get install {debian}"


def findings(known: Known) -> list[Finding]:
    """All there is, problems first."""
    found = [finding for rule in _RULES for finding in rule(known)]
    return sorted(found, key=lambda finding: finding.severity != PROBLEM)


def _userland(known: Known) -> Iterator[Finding]:
    if known.fact("userland_bits") == "32":
        yield Finding(
            "userland",
            PROBLEM,
            f"a 32-bit system on a {known.fact('arch')} kernel: images for {known.fact('arch')} do not run in it",
            "install the 64-bit image of the system (Raspberry Pi Imager: Raspberry Pi OS (64-bit))",
        )


def _docker(known: Known) -> Iterator[Finding]:
    if "docker" not in known.runtimes:
        return
    socket, state = known.fact("docker_socket"), known.fact("docker")
    if state == "denied":
        waiting = "docker" in known.fact("groups_at_next_login").split(",")
        remedy = "log in again: the group counts from then on" if waiting else "sudo usermod -aG docker $USER"
        yield Finding("docker-permission", PROBLEM, f"this user may not use Docker ({socket})", remedy)
    elif state == "silent":
        reason = known.fact("docker_reason")
        yield Finding("docker-engine", PROBLEM, f"Docker at {socket} does not answer: {reason}", "restart the engine")
    elif state == "refused":
        yield Finding("docker-engine", PROBLEM, known.fact("docker_reason"), "correct coldstart_docker_host")
    elif state == "absent" and not known.fact("dockerd"):
        remedy = known.package("docker.io", "moby-engine", "docker")
        yield Finding("docker-engine", NOTE, "no Docker engine: containers are skipped", remedy)
    elif state == "absent" and (known.fact("service_manager") or known.fact("user") != "root"):
        remedy = "sudo rc-service docker start" if "alpine" in known.fact("os_id") else "sudo systemctl start docker"
        yield Finding("docker-engine", PROBLEM, "the Docker engine is installed but not running", remedy)


def _memory_cgroup(known: Known) -> Iterator[Finding]:
    if known.fact("memory_cgroup") == "off":
        remedy = "boot with cgroup_enable=memory"
        if file := known.fact("boot_file"):
            remedy = f"add `cgroup_enable=memory cgroup_memory=1` to the one line of {file}, then reboot"
        yield Finding("memory-cgroup", NOTE, "the memory control group is off: no memory figures or limits", remedy)


def _qemu(known: Known) -> Iterator[Finding]:
    if "qemu" not in known.runtimes:
        return
    arch = known.fact("arch")
    if arch in ("x86_64", "aarch64") and not known.fact(f"qemu-system-{arch}"):
        debian = "qemu-system-x86" if arch == "x86_64" else "qemu-system-arm"
        remedy = known.package(debian, f"qemu-system-{arch}-core", f"qemu-system-{arch}")
        yield Finding("qemu", NOTE, "no QEMU: virtual machines and unikernels are skipped", remedy)
        return
    if known.fact("kvm_device") == "absent":
        nested = known.fact("virtual") and not known.fact("cpu_can_virtualise")
        remedy = (
            "let the hypervisor nest, or take bare metal" if nested else "modprobe kvm, or enable it in the firmware"
        )
        yield Finding("kvm", NOTE, "no /dev/kvm: machines are emulated, many times slower", remedy)
    elif known.fact("kvm_device") == "denied":
        yield Finding(
            "kvm", NOTE, "this user may not use /dev/kvm: machines are emulated", "sudo usermod -aG kvm $USER"
        )
    if known.fact("net_admin") != "yes" or known.fact("tun") != "yes":
        text = "no tap devices (CAP_NET_ADMIN, /dev/net/tun): machines get QEMU's own network stack, net=user"
        yield Finding("tap", NOTE, text, "log in as root, or ansible_become: true with `sudo -n`")


def _sudo(known: Known) -> Iterator[Finding]:
    if known.fact("user") != "root":
        works = known.fact("sudo_works") == "yes"
        rule = f"{known.fact('user_name')} ALL=(ALL) NOPASSWD: ALL"
        remedy = "ansible_become: true" if works else f"`{rule}` in /etc/sudoers.d/coldstart, then ansible_become: true"
        text = "not root: no early probes of containers, no page-cold starts of them, no memory of others' processes"
        yield Finding("sudo", NOTE, text, remedy)


def _throttled(known: Known) -> Iterator[Finding]:
    if complaint := known.fact("throttled"):
        remedy = "a stronger power supply, a heat sink or fan; the firmware remembers until the next boot"
        yield Finding("throttled", PROBLEM, f"the firmware slows the processor: {complaint}", remedy)
    if quota := known.fact("cpu_quota"):
        text = f"a quota of {quota} cores: starts are throttled by the scheduler"
        yield Finding("cpu-quota", NOTE, text, "lift it (CPUQuota=, cpu.max, cpu.cfs_quota_us), or mean it")
    if known.fact("governor") in ("powersave", "ondemand", "conservative"):
        text = f"the processor's clock follows the load (governor {known.fact('governor')})"
        remedy = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("governor", NOTE, text, remedy)


def _busy(known: Known) -> Iterator[Finding]:
    load, cpus = float(known.fact("load") or 0), int(known.fact("cpus") or 1)
    if load > BUSY * cpus:
        yield Finding("busy", NOTE, f"load {load:g} on {cpus} processors", "end what else runs there before a sweep")


def _clocks(known: Known) -> Iterator[Finding]:
    if known.fact("clock") == "unsynchronised":
        remedy = known.package("chrony", "chrony", "chrony")
        text = "nobody synchronises the wall clock; starts are together all the same, logs are not"
        yield Finding("clock-unsynchronised", NOTE, text, f"{remedy}, or timedatectl set-ntp true")
    if abs(known.wall_offset_ns) - known.wall_bound_ns > WALL_NS:
        off = format_duration(abs(known.wall_offset_ns))
        way = "ahead of" if known.wall_offset_ns > 0 else "behind"
        yield Finding("clock-offset", NOTE, f"its wall clock is {off} {way} this machine's", "synchronise both")


def _room(known: Known) -> Iterator[Finding]:
    for what, floor_bytes, remedy in (
        ("memory", known.floors.memory_bytes, "free some, or lower coldstart_memory_floor"),
        (
            "disk",
            known.floors.disk_bytes,
            "free some, or lower coldstart_disk_floor; coldstart clean INVENTORY --images",
        ),
    ):
        name = "memory_available_bytes" if what == "memory" else "disk_free_bytes"
        free_bytes = int(known.fact(name) or floor_bytes)
        if free_bytes < floor_bytes:
            text = f"{format_bytes(free_bytes)} of {what} free, the floor is {format_bytes(floor_bytes)}: not swept"
            yield Finding(f"{what}-floor", PROBLEM, text, remedy)


def _swept(known: Known) -> Iterator[Finding]:
    if known.swept:
        text = f"removed what a dead run had left: {', '.join(known.swept)}"
        yield Finding("swept", NOTE, text, "nothing to do")


_RULES: tuple[Callable[[Known], Iterator[Finding]], ...] = (
    *(_userland, _room, _docker, _memory_cgroup, _qemu, _sudo),
    *(_throttled, _busy, _clocks, _swept),
)
