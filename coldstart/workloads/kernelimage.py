"""What the file of a Linux kernel is for, and how QEMU likes it best."""

from __future__ import annotations

import struct

from coldstart.workloads.unpack import unpack

_X86_MAGIC, _X86_AT = b"HdrS", 0x202
_ARM_MAGIC, _ARM_AT = b"ARM\x64", 56
_EFI_MAGIC, _EFI_AT = b"zimg", 4  # "zboot": an EFI program that unpacks the real image


def plain(image: bytes, name: str) -> bytes:
    """aarch64 kernels come plain, gzipped or as an EFI program with a compressed image in it, which QEMU reads from 8.0
    on only: plain suits all. Others stay as they are. name: for errors."""
    if image[_EFI_AT : _EFI_AT + 4] == _EFI_MAGIC:
        offset, length = struct.unpack_from("<II", image, 8)
        image = image[offset : offset + length]
    return unpack(image, name)


def architecture(image: bytes) -> str:
    """Ours; empty if it is no kernel we know."""
    if image[_X86_AT : _X86_AT + 4] == _X86_MAGIC:
        return "x86_64"
    if image[_ARM_AT : _ARM_AT + 4] == _ARM_MAGIC:
        return "aarch64"
    return ""
