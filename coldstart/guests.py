"""What a machine boots: the built-in guests as QEMU options, and files of users told apart by their first bytes.

A kernel is what QEMU's `-kernel` takes: a Linux kernel, an ELF file (PVH, multiboot), an arm64 image. Whether it will
boot only a boot can tell; what cannot possibly is refused here, before it is sent anywhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldstart.errors import ImageError

KERNEL, INITRD, DRIVE = "kernel", "initrd", "drive"
PARTS = (KERNEL, INITRD, DRIVE)

TYPICAL_BOOT_NS = {"hello-vm": 6_000_000_000}  # of guests that take far longer than QEMU does; emulated

_HEAD_BYTES = 8192  # a multiboot header lies within
_ELF_MACHINES = {3: "x86_64", 62: "x86_64", 183: "aarch64"}  # an i386 ELF file is a multiboot kernel
_MULTIBOOT = 0x1BADB002
_QCOW2 = b"QFI\xfb"
_QCOW2_HEADER_BYTES, _QCOW2_EXTERNAL_DATA = 104, 1 << 2
_KINDS = "a Linux kernel, an ELF file (PVH or multiboot) or an arm64 image"

# Reset and set again by whoever starts the guest; the handler echoes the one, listens at the other.
ENVIRONMENT = {"COLDSTART_NONCE": "{nonce}", "COLDSTART_IP": "{ip}/{prefix}", "COLDSTART_GATEWAY": "{gateway}"}

_UNIKERNEL: Mapping[str, Any] = {
    "memory_bytes": 8 << 20,
    "globals": ("virtio-mmio.force-legacy=false",),
    "marker": "COLDSTART boot",
}
UNIKERNEL: Mapping[str, Mapping[str, Any]] = {
    "x86_64": {
        **_UNIKERNEL,
        # Everything off that it does not use: with ACPI alone, SeaBIOS takes the place of the smaller qboot.
        "machine": "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,acpi=off,isa-serial={console}",
        "qemu_args": ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
        "exit_codes": (33,),
    },
    "aarch64": {**_UNIKERNEL, "machine": "virt", "nic": "virtio-net-device", "exit_codes": (0,)},
}


_LINUX: Mapping[str, Any] = {
    "memory_bytes": 128 << 20,
    "nic": "virtio-net-pci,romfile=",  # nobody boots from the network: nothing to load for it
    "marker": "COLDSTART boot",
    "exit_codes": (0,),
}
# cryptomgr.notests and ipv6.disable leave out work that a server for IPv4 has no use for; panic=-1 restarts at once,
# which is QEMU's end. What makes a kernel safe stays on.
_WORDS = "quiet panic=-1 cryptomgr.notests ipv6.disable=1"
LINUX: Mapping[str, Mapping[str, Any]] = {
    "x86_64": {**_LINUX, "machine": "q35", "cmdline": f"console=ttyS0 {_WORDS}"},
    "aarch64": {**_LINUX, "machine": "virt", "cmdline": f"console=ttyAMA0 {_WORDS}"},
}


def check_kernel(path: Path, arch: str) -> None:
    """ImageError if QEMU for `arch` could not possibly start it."""
    found = kernel_arch(_head(path))
    if not found:
        raise ImageError(f"{path}: no kernel that QEMU could start", hint=f"name {_KINDS}")
    if found != arch:
        hint = f"arch: {found} in `image` has it emulated" if found in UNIKERNEL else "name another"
        raise ImageError(f"{path}: a kernel for {found}, but {arch} is wanted", hint=hint)


def kernel_arch(head: bytes) -> str:
    """For which architecture a file that begins so is a kernel; empty if it is none."""
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        machine: int = struct.unpack_from("<H", head, 18)[0]
        return _ELF_MACHINES.get(machine, f"ELF machine {machine}")
    if head[0x202:0x206] == b"HdrS" or _is_multiboot(head):
        return "x86_64"
    if head[4:8] == b"zimg" or _unpacked(head)[56:60] == b"ARM\x64":  # packed by EFI's loader, by gzip, not at all
        return "aarch64"
    return ""


def check_drive(path: Path) -> None:
    """ImageError if it is no disk, or not all of one."""
    head = _head(path)
    if not head:
        raise ImageError(f"{path}: empty, not a disk", hint="name a raw or qcow2 image")
    if not head.startswith(_QCOW2):
        return
    if len(head) < _QCOW2_HEADER_BYTES:
        raise ImageError(f"{path}: a damaged qcow2 image", hint="write it anew")
    version, backing = struct.unpack_from(">IQ", head, 4)
    external = version >= 3 and struct.unpack_from(">Q", head, 72)[0] & _QCOW2_EXTERNAL_DATA
    if backing or external:
        what = "a backing file" if backing else "a data file"
        raise ImageError(f"{path}: it needs {what}", hint=f"qemu-img convert -O qcow2 {path.name} whole.qcow2")


def _is_multiboot(head: bytes) -> bool:
    words = struct.unpack_from(f"<{len(head) // 4}I", head)
    triples = zip(words, words[1:], words[2:], strict=False)
    return any(magic == _MULTIBOOT and (magic + flags + check) & 0xFFFFFFFF == 0 for magic, flags, check in triples)


def _unpacked(head: bytes) -> bytes:
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 64)
    except zlib.error:
        return b""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
