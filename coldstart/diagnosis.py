"""What stands in the way of measuring on a node, and how to mend it: facts -> findings. Pure.

Each rule is a function of what is known of one node. `problem`: something that a sweep needs there will not work, or a
figure will be wrong; `note`: less can be measured, or less well. Every finding has its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from coldstart import packages
from coldstart.floors import Floors
from coldstart.model import Finding
from coldstart.units import format_bytes, format_duration

PROBLEM, NOTE = "problem", "note"
WALL_NS = 1_000_000_000  # a wall clock that is further off makes logs and certificates unusable
PREPARE = "or coldstart prepare INVENTORY"  # docs/prepare.md
PAST = " before"  # how a fact about throttling says that it is over
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

    @property
    def family(self) -> str:
        """Of the distribution (`packages.py`); '' for any other."""
        return packages.family_of(self.fact("os_id").split())

    def package(self, wanted: str) -> str:
        """The command that installs something, in this distribution's words."""
        if not self.family:
            return f"install {packages.PACKAGES[wanted][packages.DEBIAN]} with the system's package manager"
        name = packages.PACKAGES[wanted].get(self.family, "")
        return f"sudo {packages.INSTALL[self.family]} {name}" if name else packages.ELSEWHERE[wanted]

    def service(self, verb: str, name: str) -> str:
        """The command that starts or restarts a service."""
        return f"sudo rc-service {name} {verb}" if self.family == "alpine" else f"sudo systemctl {verb} {name}"

    def join(self, group: str) -> str:
        """How the user comes into a group; busybox has no usermod."""
        if group in self.fact("groups_at_next_login").split(","):
            return "log in again: the group counts from then on"
        user = self.fact("user_name") or "$USER"
        way = f"addgroup {user} {group}" if self.family == "alpine" else f"usermod -aG {group} {user}"
        return f"sudo {way}, then log in again"


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
        remedy = known.join("docker")
        if not known.fact("docker_group"):  # the socket is root's until an engine starts that finds the group
            create = "addgroup" if known.family == "alpine" else "groupadd"
            remedy = f"sudo {create} docker, {known.service('restart', 'docker')}, {remedy}"
        yield Finding("docker-permission", PROBLEM, f"this user may not use Docker ({socket})", remedy)
    elif state == "silent":
        text = f"Docker at {socket} does not answer: {known.fact('docker_reason')}"
        remedy = known.service("restart", "docker") if known.fact("service_manager") else "restart dockerd"
        yield Finding("docker-engine", PROBLEM, text, remedy)
    elif state == "refused":
        yield Finding("docker-engine", PROBLEM, known.fact("docker_reason"), "correct coldstart_docker_host")
    elif state == "absent":
        yield from _no_engine(known)


def _no_engine(known: Known) -> Iterator[Finding]:
    """Root without a service manager needs none: a sweep borrows one."""
    if not known.fact("dockerd"):
        remedy = f"{known.package('docker')}; {PREPARE}"
        yield Finding("docker-engine", NOTE, "no Docker engine: containers are skipped", remedy)
    elif known.fact("service_manager"):
        remedy = known.service("start", "docker")
        yield Finding("docker-engine", PROBLEM, "the Docker engine is installed but not running", remedy)
    elif known.fact("user") != "root":
        remedy = "start dockerd as root, or let a sweep do it: ansible_become: true"
        yield Finding("docker-engine", PROBLEM, "the Docker engine is installed but not running", remedy)


def _memory_cgroup(known: Known) -> Iterator[Finding]:
    if known.fact("memory_cgroup") == "off":
        text = "the memory control group is off: no memory figures or limits"
        yield Finding("memory-cgroup", NOTE, text, _boot_with_memory(known))


def _boot_with_memory(known: Known) -> str:
    """It is decided when the kernel starts. The last word counts: it also undoes what the firmware of a Raspberry Pi
    puts in front (cgroup_disable=memory)."""
    if file := known.fact("boot_file"):
        return f"add `cgroup_enable=memory cgroup_memory=1` to the one line of {file}, then reboot; {PREPARE}"
    if known.family in (packages.FEDORA, packages.RHEL):
        return "sudo grubby --update-kernel=ALL --args=cgroup_enable=memory, then reboot"
    if known.family == "debian":
        return "add cgroup_enable=memory to GRUB_CMDLINE_LINUX in /etc/default/grub, then sudo update-grub and reboot"
    return "boot the kernel with cgroup_enable=memory"


def _qemu(known: Known) -> Iterator[Finding]:
    if "qemu" not in known.runtimes:
        return
    arch = known.fact("arch")
    if arch in ("x86_64", "aarch64") and not known.fact(f"qemu-system-{arch}"):
        remedy = f"{known.package(f'qemu-{arch}')}; {PREPARE}"
        yield Finding("qemu", NOTE, "no QEMU: virtual machines and unikernels are skipped", remedy)
        return
    yield from _kvm(known)
    if known.fact("net_admin") != "yes" or known.fact("tun") != "yes":
        text = "no tap devices (CAP_NET_ADMIN, /dev/net/tun): machines get QEMU's own network stack, net=user"
        yield Finding("tap", NOTE, text, "log in as root, or ansible_become: true with `sudo -n`")


def _kvm(known: Known) -> Iterator[Finding]:
    if known.fact("kvm_device") == "denied":
        text = "this user may not use /dev/kvm: machines are emulated, many times slower"
        yield Finding("kvm", NOTE, text, known.join("kvm"))
    elif known.fact("kvm_device") == "absent":
        yield Finding("kvm", NOTE, "no /dev/kvm: machines are emulated, many times slower", _get_kvm(known))


def _get_kvm(known: Known) -> str:
    """Only x86 says in its flags whether the processor can; newer kernels clear the flag if the firmware forbids it."""
    if known.fact("arch") == "aarch64":
        if "Raspberry" in known.fact("board"):
            return "boot the system's own 64-bit kernel, which has KVM (arm_64bit=1 in config.txt)"
        return "take bare metal with a kernel that has KVM: hypervisors on aarch64 seldom nest"
    if known.fact("cpu_can_virtualise"):
        return "sudo modprobe kvm_intel, or kvm_amd; if it refuses, enable VT-x or AMD-V in the firmware"
    if known.fact("virtual"):
        return "let the hypervisor nest (nested=1 of its host's kvm_intel or kvm_amd), or take bare metal"
    return "enable VT-x or AMD-V in the firmware, then sudo modprobe kvm_intel, or kvm_amd"


def _sudo(known: Known) -> Iterator[Finding]:
    if known.fact("user") != "root":
        text = "not root: no early probes of containers, no page-cold starts of them, no memory of others' processes"
        yield Finding("sudo", NOTE, text, _become(known))


def _become(known: Known) -> str:
    if known.fact("sudo_works") == "yes":
        return "ansible_become: true"
    if not known.fact("sudo"):
        return f"{known.package('sudo').removeprefix('sudo ')} as root, or log in as root"
    rule = f"{known.fact('user_name')} ALL=(ALL) NOPASSWD: ALL"
    return f"`{rule}` in /etc/sudoers.d/coldstart, then ansible_become: true"


def _throttled(known: Known) -> Iterator[Finding]:
    """What the firmware remembers need not have touched a boot of this sweep; what it does now touches all."""
    said = [words for words in known.fact("throttled").split(", ") if words]
    if now := [words for words in said if not words.endswith(PAST)]:
        remedy = "a stronger power supply, a heat sink or fan"
        yield Finding("throttled", PROBLEM, f"the firmware slows the processor: {', '.join(now)}", remedy)
    elif said:
        past = ", ".join(words.removesuffix(PAST) for words in said)
        remedy = "a stronger power supply, a heat sink or fan; the firmware remembers until the next boot"
        yield Finding("throttled", NOTE, f"the firmware has slowed the processor since it started: {past}", remedy)
    if times := known.fact("thermal_throttles"):
        text = f"heat has slowed the processor since it started (counted {times} times)"
        yield Finding("throttled", NOTE, text, "clean its fan; put gaps between boots; look for drift in the report")


def _cpu_quota(known: Known) -> Iterator[Finding]:
    if quota := known.fact("cpu_quota"):
        periods = known.fact("cpu_throttled_periods")
        used = f" (used up {periods} times so far)" if periods else ""
        text = f"a quota of {quota} cores: starts are throttled by the scheduler{used}"
        yield Finding("cpu-quota", NOTE, text, "lift it (CPUQuota=, cpu.max, cpu.cfs_quota_us), or mean it")


def _governor(known: Known) -> Iterator[Finding]:
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
        remedy = known.package("chrony")
        also = "" if known.family == "alpine" else ", or sudo timedatectl set-ntp true"
        text = "nobody synchronises the wall clock; starts are together all the same, logs are not"
        yield Finding("clock-unsynchronised", NOTE, text, remedy + also)
    if abs(known.wall_offset_ns) - known.wall_bound_ns > WALL_NS:
        off = format_duration(abs(known.wall_offset_ns))
        way = "ahead of" if known.wall_offset_ns > 0 else "behind"
        yield Finding("clock-offset", NOTE, f"its wall clock is {off} {way} this machine's", "synchronise both")


def _room(known: Known) -> Iterator[Finding]:
    floors = known.floors
    if short := _below(known, "memory_available_bytes", floors.memory_bytes):
        remedy = "free some, or lower coldstart_memory_floor"
        yield Finding("memory-floor", PROBLEM, f"{short[0]} of memory free, {short[1]}: not swept", remedy)
    remedy = "free some, or lower coldstart_disk_floor; coldstart clean INVENTORY --images"
    if short := _below(known, "disk_free_bytes", floors.disk_bytes):
        yield Finding("disk-floor", PROBLEM, f"{short[0]} of disk free, {short[1]}: not swept", remedy)
    elif "docker" in known.runtimes and (short := _below(known, "docker_root_free_bytes", floors.disk_bytes)):
        text = f"{short[0]} of disk free at {known.fact('docker_root')}, {short[1]}: images may not fit"
        yield Finding("disk-floor", PROBLEM, text, "docker system df shows what takes it; sudo docker image prune")


def _below(known: Known, fact: str, floor_bytes: int) -> tuple[str, str] | None:
    """What is free and the floor, in words, if it is too little; what is not known is enough."""
    free_bytes = int(known.fact(fact) or floor_bytes)
    return (format_bytes(free_bytes), f"the floor is {format_bytes(floor_bytes)}") if free_bytes < floor_bytes else None


def _memory_limit(known: Known) -> Iterator[Finding]:
    """Not a shortage that a sweep would see: MemAvailable is the machine's."""
    limit = known.fact("memory_limit_bytes")
    if limit and int(limit) < int(known.fact("memory_available_bytes") or limit):
        text = f"a control group limits memory to {format_bytes(int(limit))}: instances beyond it are killed"
        yield Finding("memory-limit", NOTE, text, "lift it (MemoryMax=, memory.max), or mean it")


def _swept(known: Known) -> Iterator[Finding]:
    if known.swept:
        text = f"removed what a dead run had left: {', '.join(known.swept)}"
        yield Finding("swept", NOTE, text, "nothing to do")


_RULES: tuple[Callable[[Known], Iterator[Finding]], ...] = (
    *(_userland, _room, _memory_limit, _docker, _memory_cgroup, _qemu, _sudo),
    *(_throttled, _cpu_quota, _governor, _busy, _clocks, _swept),
)
