"""Whether QEMU can run a guest on the processor itself (KVM) here: by doing it, once per processor model.

That /dev/kvm can be opened proves little: nested and software implementations open, and then refuse a register, or
never run an instruction. So a machine whose firmware is two instructions long is started: it ends by itself, with a
code that only a running guest can give.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile

from coldstart.agent.qemu.options import KVM, TCG, Machine
from coldstart.agent.runtimes import Unavailable

DEVICE = "/dev/kvm"
LIMIT_S = 10.0
_FIRMWARE_BYTES = 1 << 16
_MACHINE = {
    "x86_64": ("-machine", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"),
    "aarch64": ("-M", "virt"),
}
_RAN = {"x86_64": 3, "aarch64": 0}  # 1 << 1 | 1; switched off


def choose(machine: Machine, program: str, node_arch: str) -> tuple[str, str]:
    """(`kvm` or `tcg`, a warning or ''). Unavailable if kvm is asked for and cannot be had."""
    if machine.options.accel == TCG:
        return TCG, ""
    refusal = _refusal(machine, program, node_arch)
    if refusal is None:
        return KVM, ""
    if machine.options.accel == KVM:
        raise refusal
    expected = machine.arch != node_arch or not os.path.exists(DEVICE)  # the label says enough
    return TCG, "" if expected else f"the processor is emulated: {refusal.reason} ({refusal.hint})"


def _refusal(machine: Machine, program: str, node_arch: str) -> Unavailable | None:
    """Why KVM cannot be used, if it cannot."""
    if machine.arch != node_arch:
        return Unavailable(f"KVM: a guest for {machine.arch} on {node_arch} can only be emulated", "use accel: tcg")
    if not os.path.exists(DEVICE):
        return Unavailable(f"there is no {DEVICE}", "load the module kvm; switch virtualisation on in the firmware")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Unavailable(f"no permission to use {DEVICE}", "sudo usermod -aG kvm $USER, then log in again")
    if failure := _trial(program, machine.arch, machine.options.cpu or "host"):
        return Unavailable(f"{DEVICE} is there, but no guest runs: {failure}", "try another cpu:, or use accel: tcg")
    return None


def firmware(arch: str) -> bytes:
    """What the trial's processor finds at its first address. x86: `out 0xf4, 1` at the reset vector, 16 bytes below the
    end; arm: PSCI's SYSTEM_OFF at the beginning."""
    if arch == "x86_64":
        return bytes(_FIRMWARE_BYTES - 16) + bytes.fromhex("b001e6f4f4").ljust(16, b"\x90")
    # movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0; b .
    return struct.pack("<4I", 0x52800100, 0x72B08000, 0xD4000002, 0x14000000).ljust(_FIRMWARE_BYTES, b"\0")


def _trial(program: str, arch: str, cpu: str) -> str:
    """Why no guest ran, or ''."""
    with tempfile.NamedTemporaryFile(prefix="coldstart-", suffix=".rom") as rom:
        rom.write(firmware(arch))
        rom.flush()
        argv = [program, "-nodefaults", "-no-user-config", "-display", "none", "-serial", "none", *_MACHINE[arch]]
        argv += ["-accel", KVM, "-cpu", cpu, "-m", "16M", "-bios", rom.name]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"nothing happened within {LIMIT_S:g} s"
    if done.returncode == _RAN[arch]:
        return ""
    said = done.stderr.strip().splitlines()
    return said[0][:200] if said else f"it ended with {done.returncode}"
