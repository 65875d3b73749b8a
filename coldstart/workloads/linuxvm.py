"""The reference workload as a Linux VM: a distribution's kernel, and an initramfs that holds nothing else.

Built where coldstart is used, because kernels are not ours to ship. `build` is asked before every sweep, so it does
nothing when nothing has changed; the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from coldstart import caches
from coldstart.archive import File
from coldstart.errors import ImageError
from coldstart.workloads import build as artifacts
from coldstart.workloads import initramfs, kernels
from coldstart.workloads.kernels import Kernel

_SOURCES = ("linuxvm.py", "initramfs.py", "kernelfiles.py", "kernelimage.py", "modules.py")


@dataclass(frozen=True)
class LinuxVm:
    """What QEMU is given: `-kernel`, `-initrd`."""

    kernel: Path
    initrd: Path


def default_folder() -> Path:
    """Where it is built on the controller."""
    return caches.folder("vm")


def find_or_build(arch: str) -> LinuxVm:
    """For a node of this architecture, in the usual places. ImageError if there is no kernel for it."""
    if arch not in artifacts.ARCHITECTURES:
        known = " and ".join(artifacts.ARCHITECTURES)
        raise ImageError(f"hello-vm is built for {known}, not for {arch}", hint="give an image of your own")
    kernel = kernels.find(arch)
    program, init = (_artifact(f"{name}.{arch}") for name in ("hello", "hello-vm-init"))
    return build(arch, out=default_folder(), program=program, init=init, kernel=kernel)


def find_built(arch: str) -> LinuxVm:
    """What was built last for this architecture. ImageError if there is nothing, with the reason if it cannot be."""
    kernel, out = kernels.find(arch), default_folder()
    vm = _named(arch, out)
    program, init = ((artifacts.BUILT / f"{name}.{arch}") for name in ("hello", "hello-vm-init"))
    try:
        key = _key(arch, program.read_bytes(), init.read_bytes(), kernel)
    except OSError:
        key = ""
    if not _is_current(vm, out / f"hello-vm.{arch}.stamp", key):
        raise ImageError(f"{out} has none, or an old one", hint="coldstart images build")
    return vm


def build(arch: str, *, out: Path, program: bytes, init: bytes, kernel: Kernel) -> LinuxVm:
    """Have both files in `out`, whole and up to date. program: becomes /hello; init: what starts it."""
    stamp = out / f"hello-vm.{arch}.stamp"
    vm = _named(arch, out)
    key = _key(arch, program, init, kernel)
    if _is_current(vm, stamp, key):
        return vm
    contents = kernels.load(kernel)
    files = {
        vm.kernel: contents.image,
        vm.initrd: initramfs.pack(_files(program, init, contents.modules)),
    }
    digests = {path.name: _sha256(data) for path, data in files.items()}
    files[stamp] = json.dumps({"key": key, **digests}).encode()
    try:
        # The stamp last: a build that was cut short does not look finished.
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in files.items():
            artifacts.write(path, data, 0o600)
    except OSError as error:
        raise ImageError(f"{out}: {error.strerror}", hint="set XDG_CACHE_HOME to a folder with room") from None
    return vm


def _named(arch: str, out: Path) -> LinuxVm:
    return LinuxVm(out / f"hello-vm.{arch}.kernel", out / f"hello-vm.{arch}.initrd")


def _files(program: bytes, init: bytes, modules: tuple[File, ...]) -> list[File]:
    """What vm/init.c expects."""
    order = "".join(f"/modules/{module.path}\n" for module in modules)
    return [
        File("init", init, 0o755),
        File("hello", program, 0o755),
        File("modules/order", order.encode()),
        *(File(f"modules/{module.path}", module.data) for module in modules),
    ]


def _artifact(name: str) -> bytes:
    """Wheels bring it; a source tree may not have it yet, or one from other sources."""
    path = artifacts.BUILT / name
    if not artifacts.is_right(path):
        artifacts.build(artifacts.BUILT)
    return path.read_bytes()


def _key(arch: str, program: bytes, init: bytes, kernel: Kernel) -> str:
    """What the files are made from."""
    sources = [(Path(__file__).parent / name).read_bytes() for name in _SOURCES]
    parts = [arch.encode(), kernel.stamp.encode(), *(_sha256(data).encode() for data in (program, init, *sources))]
    return _sha256(b"\n".join(parts))


def _is_current(vm: LinuxVm, stamp: Path, key: str) -> bool:
    try:
        wanted = {"key": key, **{path.name: _sha256(path.read_bytes()) for path in (vm.kernel, vm.initrd)}}
        return bool(json.loads(stamp.read_bytes()) == wanted)
    except (OSError, ValueError):
        return False


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
