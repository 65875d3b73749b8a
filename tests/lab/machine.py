"""QEMU's command line for a guest, and the process that becomes QEMU: `python -S -m lab.machine SPEC`.

That process joins the node's control groups, so that QEMU ends with the lab, and enters its network. QEMU puts itself
into the background when the machine is there; what it says before that is on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, kernel

PROGRAM = "qemu-system-aarch64"
TAP = "guest"  # in the node's network namespace
CONSOLE = "console"
MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """folder: where its files are and its console goes."""

    name: str
    folder: str
    kernel: str
    cpus: int
    memory_bytes: int
    mac: str


def argv(machine: Machine) -> list[str]:
    """Emulated, whatever this machine could do: it is the processor of a Raspberry Pi 4 that is wanted, with all of its
    privilege levels, so that there is a /dev/kvm in the guest as there is on a Pi."""
    return [
        PROGRAM,
        *("-name", machine.name, "-nodefaults", "-no-user-config", "-display", "none", "-daemonize"),
        *("-machine", "virt,virtualization=on", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi"),
        *("-smp", str(machine.cpus), "-m", f"{machine.memory_bytes // MIB}M"),
        *("-serial", f"file:{machine.folder}/{CONSOLE}"),
        *("-kernel", machine.kernel, "-initrd", f"{machine.folder}/initrd", "-append", command_line()),
        *("-drive", f"file={machine.folder}/disk.qcow2,format=qcow2,if=none,id=disk,cache=writeback"),
        *("-device", "virtio-blk-device,drive=disk"),
        *("-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no"),
        *("-device", f"virtio-net-device,netdev=net,mac={machine.mac}"),
        *("-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-device,rng=random"),
    ]


def command_line() -> str:
    """What the kernel is told. A kernel that panics starts again, as a node's watchdog would have it. Entropy: QEMU's
    seed in the device tree is believed, so that nothing waits for more of it."""
    return "console=ttyAMA0 quiet loglevel=4 panic=5 random.trust_cpu=on random.trust_bootloader=on"


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    cgroups.join(spec["group"])
    kernel.enter_net(spec["netns"])
    os.execvp(spec["argv"][0], spec["argv"])


if __name__ == "__main__":
    main()
