"""What of a Linux kernel a virtual machine needs: its image, and the modules of virtio's network card on PCI.

Read from any set of files that is laid out as a distribution installs them: a folder, an open package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coldstart.archive import File
from coldstart.errors import ImageError
from coldstart.workloads import kernelimage, modules
from coldstart.workloads.unpack import unpack

REQUIRED = ("virtio_pci", "virtio_net")
# The network card last: when its driver comes, every bus it could be on is there.
WANTED = ("virtio_pci", "virtio_mmio", "virtio_net")
MODULE_FOLDERS = ("lib/modules", "usr/lib/modules")

_IMAGE = re.compile(r"boot/vmlinuz-(?P<in_boot>[^/]+)|(?:usr/)?lib/modules/(?P<beside>[^/]+)/vmlinuz")


@dataclass(frozen=True)
class Contents:
    """image: as QEMU loads it; modules: `NAME.ko`, uncompressed, in the order in which they can be loaded."""

    release: str
    image: bytes
    modules: tuple[File, ...]


class Files(Protocol):
    """What lies below some root, by paths from there."""

    def names(self) -> Iterable[str]: ...

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class Installed:
    """The files of one kernel among those below a root."""

    root: Path
    release: str

    def images(self) -> Iterator[str]:
        places = (f"boot/vmlinuz-{self.release}", *(f"{top}/{self.release}/vmlinuz" for top in MODULE_FOLDERS))
        return (place for place in places if (self.root / place).is_file())

    def names(self) -> Iterator[str]:
        yield from self.images()
        # One of the two: they are the same folder where /lib leads to /usr/lib.
        tops = (self.root / top / self.release for top in MODULE_FOLDERS)
        for folder, _, files in os.walk(next((top for top in tops if top.is_dir()), self.root / "none")):
            yield from (os.path.relpath(os.path.join(folder, file), self.root) for file in files)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


class Drivers:
    """Finds the drivers among a kernel's files. where: for errors."""

    def __init__(self, files: Files, where: str) -> None:
        self._files = files
        self._where = where
        self._names = list(files.names())
        self.image, self.release = self._find_image()
        self._modules = modules.index(self._names, self.release)

    def check(self) -> None:
        """ImageError if what a virtual machine cannot do without is missing."""
        there = {*self._modules, *self._built_in()}
        if not there:
            hint = "Ubuntu's are in linux-modules-RELEASE: dpkg-deb -x both packages into one folder, and give that"
            raise ImageError(f"{self._where}: no modules of {self.release} in it", hint=hint)
        for name in REQUIRED:
            if name not in there:
                hint = "give another kernel; the flavours for clouds and servers have it"
                raise ImageError(f"{self._where}: {self.release} has no {name}", hint=hint)

    def load(self) -> tuple[File, ...]:
        """The modules to load, with what they need."""
        read: dict[str, bytes] = {}

        def needs(name: str) -> list[str]:
            read[name] = self._read(name)
            return modules.depends(read[name])

        wanted = [name for name in WANTED if name in self._modules]
        return tuple(File(f"{name}.ko", read[name]) for name in modules.order(wanted, needs))

    def _read(self, name: str) -> bytes:
        path = self._modules.get(name)
        if path is None:
            hint = "give a folder into which all packages of that kernel were unpacked"
            raise ImageError(f"{self._where}: the module {name}, which others need, is missing", hint=hint)
        return unpack(self._files.read(path), f"{self._where}: {path}")

    def _built_in(self) -> frozenset[str]:
        lists = [f"{top}/{self.release}/modules.builtin" for top in MODULE_FOLDERS]
        found = next((path for path in lists if path in self._names), None)
        return modules.built_in(self._files.read(found).decode()) if found else frozenset()

    def _find_image(self) -> tuple[str, str]:
        for name in sorted(self._names):
            if match := _IMAGE.fullmatch(name):
                return name, match["in_boot"] or match["beside"]
        hint = "a package that only depends on a kernel's? give that one: apt-cache depends PACKAGE"
        raise ImageError(f"{self._where}: no vmlinuz-RELEASE in it", hint=hint)


def load(files: Files, where: str) -> Contents:
    """All of it. ImageError if something is missing or damaged."""
    drivers = Drivers(files, where)
    drivers.check()
    image = kernelimage.plain(files.read(drivers.image), f"{where}: {drivers.image}")
    return Contents(drivers.release, image, drivers.load())
