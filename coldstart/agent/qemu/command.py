"""QEMU's command line for one boot. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coldstart.agent.qemu.options import KVM, Machine
from coldstart.agent.subnets import mac_of

KIB = 1024
TAP_FD = 3  # of QEMU
# What QEMU's own network stack tells its only guest.
USER_ADDRESS, USER_GATEWAY, USER_PREFIX = "10.0.2.15", "10.0.2.2", 24
# Emulated: a Raspberry Pi 4's, as edge nodes have; elsewhere all that QEMU knows. KVM takes the processor's own.
_EMULATED = {"aarch64": "cortex-a72"}


@dataclass(frozen=True)
class Attachment:
    """How a boot is reached. address, gateway, prefix: as the guest sees them; guest_port: where it listens, 0 if that
    is not asked; host_port: what is forwarded to it, 0 with a tap device."""

    address: str
    gateway: str
    prefix: int
    guest_port: int
    host_port: int = 0

    @property
    def netmask(self) -> str:
        bits = (0xFFFFFFFF << (32 - self.prefix)) & 0xFFFFFFFF
        return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))

    @property
    def mac(self) -> str:
        return mac_of(self.address)


@dataclass(frozen=True)
class Start:
    """One boot. program: QEMU's path; files: kernel, initrd, drive, as far as there are; accel: `kvm` or `tcg`."""

    program: str
    name: str
    accel: str
    files: Mapping[str, str]
    env: Mapping[str, str]
    nonce: str
    attachment: Attachment
    drive_format: str = "raw"


def argv(machine: Machine, start: Start) -> list[str]:
    """Nothing but what is asked for: no defaults, no configuration files, no display; a reset ends it."""
    options = machine.options
    return [
        start.program,
        *("-name", start.name, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *(
            "-machine",
            machine.machine,
            "-accel",
            start.accel,
            "-cpu",
            options.cpu or _processor(machine.arch, start.accel),
        ),
        *("-smp", str(options.cpus), "-m", f"size={options.memory_bytes // KIB}k"),
        *(("-bios", options.firmware) if options.firmware else ()),
        *_boot(machine, start),
        *_network(machine, start.attachment),
        *(word for text in options.globals for word in ("-global", text)),
        *("-serial", "stdio" if machine.console else "none"),
        *options.qemu_args,
    ]


def _processor(arch: str, accel: str) -> str:
    return "host" if accel == KVM else _EMULATED.get(arch, "max")


def command_line(machine: Machine, start: Start) -> str:
    """What the kernel is told."""
    words = [machine.options.cmdline, *(f"{key}={value}" for key, value in start.env.items())]
    return _filled(" ".join(filter(None, words)), start)


def _boot(machine: Machine, start: Start) -> Iterator[str]:
    kernel, initrd, drive = (start.files.get(part, "") for part in ("kernel", "initrd", "drive"))
    if kernel:
        yield from ("-kernel", kernel)
    if initrd:
        yield from ("-initrd", initrd)
    if kernel and (text := command_line(machine, start)):
        yield from ("-append", text)
    if drive:
        # Every boot finds the disk as it came: what a guest writes goes to a file that has no name any more.
        what = f"file={_escaped(drive)},format={start.drive_format},if=none,id=disk,snapshot=on"
        yield from ("-drive", what, "-device", f"{machine.disk},drive=disk")


def _network(machine: Machine, to: Attachment) -> Iterator[str]:
    if to.host_port:
        # restrict: a guest has no business outside; the forwarded port works all the same.
        forward = f",hostfwd=tcp:127.0.0.1:{to.host_port}-{to.address}:{to.guest_port}" if to.guest_port else ""
        yield from ("-netdev", f"user,id=net,restrict=on{forward}")
    else:
        yield from ("-netdev", f"tap,id=net,fd={TAP_FD}")
    yield from ("-device", f"{machine.nic},netdev=net,mac={to.mac}")


def _filled(text: str, start: Start) -> str:
    """Not str.format: a command line may hold braces of its own."""
    to = start.attachment
    values = {"nonce": start.nonce, "ip": to.address, "prefix": to.prefix, "netmask": to.netmask}
    values.update({"gateway": to.gateway, "mac": to.mac, "port": to.guest_port})
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _escaped(value: str) -> str:
    """As QEMU's option lists want it: a comma doubled."""
    return value.replace(",", ",,")
