"""Kernels that would not boot, as packages and as distributions: only what is looked at is there."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

X86 = bytes(0x202) + b"HdrS" + bytes(100)
ARM = bytes(56) + b"ARM\x64" + bytes(100)
IMAGES = {"amd64": X86, "arm64": ARM}


def module(name: str, *needs: str) -> bytes:
    return f"\x7fELF {name}\0license=GPL\0depends={','.join(needs)}\0".encode()


# As Debian's: nothing of virtio is built in.
MODULES = {
    "kernel/net/core/failover.ko": module("failover"),
    "kernel/drivers/net/net_failover.ko": module("net_failover", "failover"),
    "kernel/drivers/net/virtio_net.ko": module("virtio_net", "net_failover", "virtio", "virtio_ring"),
    "kernel/drivers/net/e1000.ko": module("e1000"),
    "kernel/drivers/virtio/virtio.ko": module("virtio", "virtio_ring"),
    "kernel/drivers/virtio/virtio_ring.ko": module("virtio_ring"),
    "kernel/drivers/virtio/virtio_pci.ko": module("virtio_pci", "virtio", "virtio_ring"),
    "modules.builtin": b"kernel/net/ipv6/ipv6.ko\n",
}
IN_ORDER = ["virtio_ring.ko", "virtio.ko", "virtio_pci.ko", "failover.ko", "net_failover.ko", "virtio_net.ko"]


def installed(release: str, image: bytes = X86, files: Mapping[str, bytes] = MODULES) -> dict[str, bytes]:
    """A kernel's files, by their paths from the root."""
    return {f"boot/vmlinuz-{release}": image, **{f"lib/modules/{release}/{name}": data for name, data in files.items()}}


def place(root: Path, files: Mapping[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def deb(
    files: Mapping[str, bytes],
    *,
    package: str = "linux-image-6.1.0-9-cloud-arm64",
    architecture: str = "arm64",
    compress: Callable[[bytes], bytes] = lzma.compress,
    suffix: str = ".xz",
) -> bytes:
    """A Debian package."""
    control = f"Package: {package}\nArchitecture: {architecture}\nDescription: a\n more: of it\n".encode()
    return ar(
        {
            "debian-binary": b"2.0\n",
            f"control.tar{suffix}": compress(tar({"./control": control})),
            f"data.tar{suffix}": compress(tar({f"./{name}": data for name, data in files.items()})),
        }
    )


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    whole = b"!<arch>\n"
    for name, data in members.items():
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        whole += data + b"\n" * (len(data) % 2)
    return whole
