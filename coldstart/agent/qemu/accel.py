"""Whether QEMU can run a guest on the processor itself (KVM) here: by doing it, once per processor model.

That /dev/kvm can be opened proves little: nested and software implementations open, and then refuse a register, or
never run an instruction. So a machine whose firmware is two instructions long is started: it ends by itself, with a
code that only a running guest can give.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from coldstart.agent import launcher, spawn
from coldstart.agent.leader import Leader
from coldstart.agent.qemu.options import KVM, TCG, Machine
from coldstart.agent.runtimes import Unavailable

DEVICE = "/dev/kvm"
LIMIT_S = 10.0
_ROM_FD = 3  # of QEMU
_FIRMWARE_BYTES = 1 << 16
_MACHINE = {
    "x86_64": ("-machine", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"),
    "aarch64": ("-M", "virt"),
}
_RAN = {"x86_64": 3, "aarch64": 0}  # 1 << 1 | 1; switched off


@dataclass(frozen=True)
class Trial:
    """How to try it. program: QEMU; environ: of its process; known: what was found before on this node."""

    program: str
    environ: Mapping[str, str]
    known: MutableMapping[str, Any]

    def failure(self, arch: str, cpu: str) -> str:
        """Why no guest runs, or ''. Each processor is tried once."""
        key = f"kvm {arch} {cpu}"
        if key not in self.known:
            self.known[key] = self._run(arch, cpu) if arch in _MACHINE else f"no trial is written for {arch}"
        return str(self.known[key])

    def _run(self, arch: str, cpu: str) -> str:
        said, rom = os.memfd_create("qemu", os.MFD_CLOEXEC), os.memfd_create("rom", os.MFD_CLOEXEC)
        try:
            os.write(rom, firmware(arch))
            argv = [*filter(None, [launcher.path()]), self.program, "-nodefaults", "-no-user-config", *_MACHINE[arch]]
            argv += ["-display", "none", "-serial", "none", "-accel", KVM, "-cpu", cpu, "-m", "16M"]
            argv += ["-bios", f"/proc/self/fd/{_ROM_FD}"]
            leader = Leader(spawn.spawn_with(argv, dict(self.environ), {1: said, 2: said, _ROM_FD: rom}))
            ended = bool(select.select([leader.exited], [], [], LIMIT_S)[0])
            code = leader.exit_code()
            leader.end()
            words = os.pread(said, 1 << 16, 0).decode("utf-8", "replace").strip()
        except OSError as error:
            return f"{self.program}: {error.strerror}"
        finally:
            os.close(said)
            os.close(rom)
        if not ended:
            return f"nothing happened within {LIMIT_S:g} s"
        return "" if code == _RAN[arch] else (words.partition("\n")[0][:200] or f"it ended with {code}")


def choose(machine: Machine, trial: Trial, node_arch: str) -> tuple[str, str]:
    """(`kvm` or `tcg`, a warning or ''). Unavailable if kvm is asked for and cannot be had."""
    if machine.options.accel == TCG:
        return TCG, ""
    refusal = _refusal(machine, trial, node_arch)
    if refusal is None:
        return KVM, ""
    if machine.options.accel == KVM:
        raise refusal
    expected = machine.arch != node_arch or not os.path.exists(DEVICE)  # the label says enough
    return TCG, "" if expected else f"the processor is emulated: {refusal.reason} ({refusal.hint})"


def _refusal(machine: Machine, trial: Trial, node_arch: str) -> Unavailable | None:
    """Why KVM cannot be used, if it cannot."""
    if machine.arch != node_arch:
        return Unavailable(f"KVM: a guest for {machine.arch} on {node_arch} can only be emulated", "use accel: tcg")
    if not os.path.exists(DEVICE):
        return Unavailable(f"there is no {DEVICE}", "load the module kvm; switch virtualisation on in the firmware")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Unavailable(f"no permission to use {DEVICE}", "sudo usermod -aG kvm $USER, then log in again")
    if failure := trial.failure(machine.arch, machine.options.cpu or "host"):
        return Unavailable(f"{DEVICE} is there, but no guest runs: {failure}", "try another cpu:, or use accel: tcg")
    return None


def firmware(arch: str) -> bytes:
    """What the trial's processor finds at its first address. x86: `out 0xf4, 1` at the reset vector, 16 bytes below the
    end; arm: PSCI's SYSTEM_OFF at the beginning."""
    if arch == "x86_64":
        return bytes(_FIRMWARE_BYTES - 16) + bytes.fromhex("b001e6f4f4").ljust(16, b"\x90")
    # movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0; b .
    return struct.pack("<4I", 0x52800100, 0x72B08000, 0xD4000002, 0x14000000).ljust(_FIRMWARE_BYTES, b"\0")
