"""What a target may say of its machine; whatever it leaves out, its image says, or this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AUTO = "auto"
ON, OFF = "on", "off"
KVM, TCG = "kvm", "tcg"
TAP, USER = "tap", "user"
ARCHITECTURES = ("x86_64", "aarch64")
_MACHINES = {"x86_64": "q35", "aarch64": "virt"}
_ON_THE_BUS = "microvm"  # it has no PCI: its devices are virtio-mmio's


@dataclass(frozen=True)
class Options:
    """cmdline, env: the kernel's command line, and words `KEY=value` behind it; `{nonce}`, `{ip}`, `{prefix}`,
    `{netmask}`, `{gateway}`, `{mac}` and `{port}` are filled in at every boot, in `machine` also `{console}` (on, off).

    arch: the guest's, empty: the node's. machine, cpu, nic, disk, firmware: as QEMU names them (`-M`, `-cpu`,
    `-device`, `-bios`), empty: a default that goes with the others. net: `tap` (the machine's own address; needs
    CAP_NET_ADMIN), `user` (QEMU's own stack, a forwarded port), `auto` (tap where it is permitted and a kernel can be
    told the address). console: a serial port that is read; it costs time. marker: the first text on it that is the
    guest's own and not firmware's, for the mark `guest`. accel: `kvm`, `tcg` (emulation), or `auto` (kvm where it
    works). exit_codes: QEMU's, of a guest that ended in order. globals, qemu_args: further arguments, as for `-global`,
    and as they are. evict: what a page-cold start forgets: the `image`'s files, or QEMU's program as well.
    """

    cmdline: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    arch: str = field(default="", metadata={"choices": ("", *ARCHITECTURES)})
    machine: str = ""
    cpu: str = ""
    cpus: int = field(default=1, metadata={"range": (1, 255)})
    memory_bytes: int = field(default=128 << 20, metadata={"range": (1 << 20, 1 << 42)})
    nic: str = ""
    disk: str = ""
    firmware: str = ""
    net: str = field(default=AUTO, metadata={"choices": (AUTO, TAP, USER)})
    console: str = field(default=OFF, metadata={"choices": (ON, OFF)})
    marker: str = ""
    accel: str = field(default=AUTO, metadata={"choices": (AUTO, KVM, TCG)})
    exit_codes: tuple[int, ...] = ()
    globals: tuple[str, ...] = ()
    qemu_args: tuple[str, ...] = ()
    evict: str = field(default="image", metadata={"choices": ("image", "image+runtime")})


@dataclass(frozen=True)
class Machine:
    """Options with every default filled in. label: the machine as it was written."""

    options: Options
    arch: str
    machine: str
    label: str
    nic: str
    disk: str

    @property
    def console(self) -> bool:
        return self.options.console == ON


def complete(options: Options, node_arch: str) -> Machine:
    """The machine that these options mean on a node of this architecture."""
    arch = options.arch or node_arch
    written = options.machine or _MACHINES.get(arch, "virt")
    machine = written.replace("{console}", options.console)
    label = ",".join(part for part in written.split(",") if "{console}" not in part)  # the console is another label
    bus = "device" if machine.startswith(_ON_THE_BUS) else "pci"
    return Machine(
        options, arch, machine, label, options.nic or f"virtio-net-{bus}", options.disk or f"virtio-blk-{bus}"
    )
