"""Where the kernel of the Linux VM comes from: one that was given, else the distribution's own.

Given (`coldstart images build --kernel PATH`): a Debian package, or a folder with boot/ and lib/modules/ as packages
are unpacked. It is kept in $XDG_DATA_HOME/coldstart/kernels, one for each architecture. The distribution's: a flavour
for clouds first, because it is the smallest, then the newest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coldstart.archive import OUR_ARCH
from coldstart.errors import ImageError
from coldstart.workloads import deb, kernelfiles, kernelhelp, kernelimage
from coldstart.workloads.kernelfiles import MODULE_FOLDERS, Contents, Drivers, Installed

_PACKAGE = re.compile(r"linux-image-(?:unsigned-)?(.+?)(?:-unsigned)?")


@dataclass(frozen=True)
class Kernel:
    """One that was found, but not read. source: a package, or what boot/ and lib/modules/ are in; stamp: another one
    once its files are others."""

    arch: str
    release: str
    source: Path
    stamp: str


def default_folder() -> Path:
    """Where kernels that were given are kept."""
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path here is invalid and to be ignored.
    base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return base / "coldstart" / "kernels"


def find(arch: str, *, kept: Path | None = None, root: Path = Path("/"), machine: str = "") -> Kernel:
    """The kernel for an architecture. kept: where given ones are; root: the distribution's; machine: what that is for.
    ImageError says where none was found, and what to do on this distribution."""
    kept = kept or default_folder()
    machine = machine or platform.machine()
    for given in (kept / f"{arch}.deb", kept / arch):
        if os.path.lexists(given):
            return examine(given, arch)
    reasons = [f"none was given (nothing in {kept})"]
    if machine == arch:
        found, problems = _best(root, arch)
        if found:
            return found
        reasons += problems or [f"none with its modules is installed in {root / 'boot'}"]
    hint = kernelhelp.next_step(arch, machine, root)
    raise ImageError(f"no Linux kernel for {arch}: {'; '.join(reasons)}", hint=hint)


def examine(source: Path, arch: str = "") -> Kernel:
    """The kernel in a package or folder, which must be for `arch` if that is said. Nothing large is read for it."""
    kernel = _of_folder(source) if source.is_dir() else _of_package(source)
    if arch and kernel.arch != arch:
        raise ImageError(f"{source}: a kernel for {kernel.arch}, not for {arch}", hint="remove it")
    return kernel


def load(kernel: Kernel) -> Contents:
    """What a virtual machine needs of it. ImageError if something is missing or damaged."""
    try:
        contents = _contents(kernel)
    except (OSError, ValueError, struct.error) as error:
        raise ImageError(f"{kernel.source}: damaged, or not all to be read: {error}", hint=kernelhelp.GIVE) from None
    found = kernelimage.architecture(contents.image)
    if found != kernel.arch:
        what = f"vmlinuz-{contents.release} is for {found or 'an unknown architecture'}, not for {kernel.arch}"
        raise ImageError(f"{kernel.source}: {what}", hint=kernelhelp.GIVE)
    return contents


def _contents(kernel: Kernel) -> Contents:
    if kernel.source.is_dir():
        return kernelfiles.load(Installed(kernel.source, kernel.release), str(kernel.source))
    with deb.data(kernel.source) as files:
        return kernelfiles.load(files, str(kernel.source))


def keep(source: Path, kept: Path | None = None) -> Kernel:
    """From now on the kernel in this package or folder is used. A package is copied, a folder is linked to."""
    kept = kept or default_folder()
    kernel = examine(source)
    load(kernel)  # what lacks a driver is refused now, not before a sweep
    package, folder = kept / f"{kernel.arch}.deb", kept / kernel.arch
    new, old = (folder, package) if source.is_dir() else (package, folder)
    try:
        _place(source.resolve(), new)
        old.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{new}: {error.strerror}", hint="set XDG_DATA_HOME to a folder you may write") from None
    return examine(new, kernel.arch)


def _place(source: Path, target: Path) -> None:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        new = Path(scratch) / target.name
        if source.is_dir():
            new.symlink_to(source)
        else:
            shutil.copyfile(source, new)
        os.replace(new, target)


# --- packages ---


def _of_package(path: Path) -> Kernel:
    fields = deb.control(path)
    package, architecture = fields.get("Package", ""), fields.get("Architecture", "")
    match = _PACKAGE.fullmatch(package)
    if not match:
        raise ImageError(f"{path}: the package {package!r} is no Linux kernel", hint=kernelhelp.GIVE)
    if architecture not in OUR_ARCH:
        known = " and ".join(OUR_ARCH)
        raise ImageError(f"{path}: a kernel for {architecture!r}", hint=f"give one for {known}")
    return Kernel(OUR_ARCH[architecture], match[1], path, _stamp([path]))


# --- folders, and the distribution as one ---


def _of_folder(root: Path) -> Kernel:
    kernel, problems = _best(root, "")
    if kernel:
        return kernel
    why = "; ".join(problems) or "no boot/vmlinuz-RELEASE with lib/modules/RELEASE in it"
    raise ImageError(f"{root}: {why}", hint=kernelhelp.GIVE)


def _best(root: Path, arch: str) -> tuple[Kernel | None, list[str]]:
    """The best of the kernels below a root, and what is wrong with those that would have been better."""
    problems: list[str] = []
    for release in sorted(_releases(root), key=_rank, reverse=True):
        try:
            return _installed(root, release, arch), problems
        except ImageError as error:
            problems.append(error.message)
        except OSError as error:
            problems.append(f"{error.filename}: {error.strerror}")
    return None, problems


def _installed(root: Path, release: str, arch: str) -> Kernel:
    files = Installed(root, release)
    drivers = Drivers(files, str(root))
    drivers.check()
    image = root / drivers.image
    if arch:
        with image.open("rb"):  # Ubuntu's are root's alone, and this is where that shows
            pass
    else:
        arch = kernelimage.architecture(kernelimage.plain(image.read_bytes(), str(image)))
    return Kernel(arch, release, root, _stamp([image, *(root / top / release for top in MODULE_FOLDERS)]))


def _releases(root: Path) -> set[str]:
    """Those that have modules and an image; kernels that were removed leave folders behind."""
    found = {path.name for top in MODULE_FOLDERS for path in (root / top).glob("*/")}
    return {name for name in found if next(Installed(root, name).images(), None)}


def _rank(release: str) -> tuple[bool, list[int]]:
    return "cloud" in release, [int(number) for number in re.findall(r"\d+", release)]


def _stamp(paths: Iterable[Path]) -> str:
    """From sizes and times: these files may be large, and this is asked before every sweep."""
    states = [(path, path.stat()) for path in paths if path.exists()]
    lines = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
