"""What an image reference of a playbook means for one runtime and one architecture.

A built-in name; a file (it starts with `.`, `/` or `~`, or there is such a file); else, where containers are wanted, a
tag: of this machine's engine, or only of the node's. A container may also be a folder with an OCI layout. Built-in
names win: write `./hello` for a file of that name. What a machine boots may have
several parts: `{kernel: FILE, initrd: FILE, drive: FILE, arch: ARCH}`; a file alone is a kernel.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from coldstart import guests, layers, ownengine, sources
from coldstart.agent.records import Image
from coldstart.assembly import BY_ARCH
from coldstart.errors import ImageError
from coldstart.source import Source
from coldstart.workloads import build, kernels, linuxvm, versions

EXECUTABLE = "executable"
DOCKER_ARCHIVE = "docker-archive"
MACHINE = "machine"
NONE = "none"

_PART = {EXECUTABLE: "program", DOCKER_ARCHIVE: "archive", MACHINE: guests.KERNEL}  # what one file alone is
_BUILT_IN = {
    "hello": (EXECUTABLE, DOCKER_ARCHIVE),
    "hello-2": (EXECUTABLE,),
    "hello-app": (DOCKER_ARCHIVE,),
    "hello-app-2": (DOCKER_ARCHIVE,),
    "hello-unikernel": (MACHINE,),
    "hello-unikernel-2": (MACHINE,),
    "hello-vm": (MACHINE,),
}

_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ELF_PROGRAMS = (2, 3)  # ET_EXEC, ET_DYN; not object files
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_TAG = re.compile(r"\w[\w./:@-]*", re.ASCII)


Reference = str | Mapping[str, str]  # Mapping: by part of a machine's image, and `arch`


@dataclass(frozen=True)
class ResolvedImage:
    """image: what the node is told; paths: the files to send to it, by part; nonce: it echoes the boot's nonce;
    options: what the image wants of its runtime, where the playbook does not say otherwise; source: a container's
    content, None if only the node's engine knows the tag."""

    image: Image
    paths: Mapping[str, Path] = field(default_factory=dict)
    nonce: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None

    @property
    def size_bytes(self) -> int:
        """Of all that a node without any of it is sent."""
        return sum(self.image.sizes.values()) + (self.source.size_bytes if self.source else 0)


def builtin_names() -> tuple[str, ...]:
    return tuple(_BUILT_IN)


def check(reference: Reference, packaging: str, base: Path) -> None:
    """ImageError if it can be said before any node is known that `resolve` will fail."""
    if packaging == NONE:
        return
    if isinstance(reference, str) and reference in _BUILT_IN:
        _check_packaging(reference, packaging)
        return
    for part, name in _parts(reference, packaging).items():
        if _found(name, packaging, base) is None:
            _check_tag(name, packaging, base, part)


def resolve(reference: Reference, *, packaging: str, arch: str, base: Path) -> ResolvedImage:
    """The image for architecture `arch`; relative paths start from `base`. ImageError says what is wrong."""
    if isinstance(reference, str) and (packaging == NONE or reference in _BUILT_IN):
        return ResolvedImage(Image(reference)) if packaging == NONE else _builtin(reference, packaging, arch)
    check(reference, packaging, base)
    if packaging == DOCKER_ARCHIVE and isinstance(reference, str):
        return _container(reference, arch, base)
    parts = _parts(reference, packaging)
    paths = {part: path for part, name in parts.items() if (path := _file(name, base))}
    try:
        return _from_files(" ".join(parts.values()), paths, packaging, arch)
    except OSError as error:
        raise ImageError(f"{error.filename or parts}: {error.strerror}", hint="name a file that can be read") from None


def is_tag(reference: Reference, packaging: str, base: Path) -> bool:
    """Whether only an engine can know it."""
    if packaging != DOCKER_ARCHIVE or not isinstance(reference, str) or reference in _BUILT_IN:
        return False
    return _found(reference, packaging, base) is None


def container(reference: str, arch: str, base: Path) -> Source | None:
    """The content of a container image; None for a tag that this machine's engine does not have for `arch`."""
    check(reference, DOCKER_ARCHIVE, base)
    if reference in _BUILT_IN:
        _check_arch(reference, arch)
        return sources.read(_built(reference, arch, ".docker.tar"), arch)
    path = _found(reference, DOCKER_ARCHIVE, base)
    return sources.read(path, arch) if path else ownengine.export(reference, arch)


@dataclass(frozen=True)
class Built:
    """A file of a built-in image. part: what it is of the image (`program`, `archive`, `kernel`, `initrd`)."""

    name: str
    arch: str
    part: str
    path: Path
    size_bytes: int
    digest: str


def built() -> tuple[list[Built], list[str]]:
    """Every built-in image that is there, and the reasons for those that are not: but of versions, which are made when
    first used, only what is there. Nothing is built for it."""
    found, missing = [], []
    for name, kinds in _BUILT_IN.items():
        for arch, packaging in product(build.ARCHITECTURES, kinds):
            try:
                paths = _made(name, arch) if name in versions.NAMES else _paths(name, packaging, arch)
            except ImageError as error:
                missing.append(f"{name} for {arch} is not built: {error}")
                continue
            found += [
                Built(name, arch, part, path, path.stat().st_size, f"sha256:{layers.digest_file(path)}")
                for part, path in paths.items()
            ]
    return found, missing


def build_all(kernel: Path | None = None) -> None:
    """Build all that can be built here. kernel: from now on used for the Linux VM. ImageError only for what needs
    nothing but the compiler."""
    build.build(build.BUILT)
    if kernel is not None:
        linuxvm.find_or_build(kernels.keep(kernel).arch)
    for arch in build.ARCHITECTURES:
        with contextlib.suppress(ImageError):  # `built` has the reason
            linuxvm.find_or_build(arch)


def _made(name: str, arch: str) -> dict[str, Path]:
    path = versions.find(name, arch, build.BUILT / versions.program_of(name, arch))
    return {_PART[_BUILT_IN[name][0]]: path} if path else {}


def _paths(name: str, packaging: str, arch: str) -> dict[str, Path]:
    if name == "hello-vm":
        vm = linuxvm.find_built(arch)
        return {guests.KERNEL: vm.kernel, guests.INITRD: vm.initrd}
    path = build.BUILT / f"{name}.{arch}{'.docker.tar' if packaging == DOCKER_ARCHIVE else ''}"
    if not build.is_right(path):
        raise ImageError(f"{path} is not there, or not from these sources", hint="coldstart images build")
    return {_PART[packaging]: path}


def _parts(reference: Reference, packaging: str) -> dict[str, str]:
    if isinstance(reference, str):
        return {_PART[packaging]: reference}
    if packaging != MACHINE:
        raise ImageError(f"an image in parts ({', '.join(reference)}) is for runtime qemu", hint="name one file")
    return {part: name for part, name in reference.items() if part in guests.PARTS}


def _check_packaging(name: str, packaging: str) -> None:
    if packaging not in _BUILT_IN[name]:
        fitting = ", ".join(other for other, kinds in _BUILT_IN.items() if packaging in kinds)
        raise ImageError(f"{name} is not built for this runtime", hint=f"built in for it: {fitting}")


def _builtin(name: str, packaging: str, arch: str) -> ResolvedImage:
    _check_packaging(name, packaging)
    _check_arch(name, arch)
    env = {"COLDSTART_NONCE": "{nonce}"}
    if packaging == EXECUTABLE:
        env["COLDSTART_PORT"] = "{port}"  # a container has its own address, a process shares its node's
        return _resolved(name, {"program": _built(name, arch)}, env=env)
    if packaging == DOCKER_ARCHIVE:
        return contained(name, sources.read(_built(name, arch, ".docker.tar"), arch), env=env)
    paths, options = _guest(name, arch)
    return _resolved(name, paths, env=guests.ENVIRONMENT, options={"arch": arch, **options})


def _check_arch(name: str, arch: str) -> None:
    if arch not in build.ARCHITECTURES:
        raise ImageError(f"{name} is built for {' and '.join(build.ARCHITECTURES)}, not for {arch}", hint=BY_ARCH)


def _container(reference: str, arch: str, base: Path) -> ResolvedImage:
    source = container(reference, arch, base)
    return contained(reference, source) if source else ResolvedImage(Image(reference, reference=reference))


def contained(name: str, source: Source, env: Mapping[str, str] | None = None) -> ResolvedImage:
    """A container, under a name of ours that says what it is: engines have it under that, and maybe others."""
    stem = re.sub(r"\.(?:tar|tar\.gz|tgz)$", "", name.rstrip("/").rpartition("/")[2].lower())
    readable = re.sub("[^a-z0-9]+", "-", stem).strip("-")[:40] or "image"
    reference = f"coldstart.local/{readable}:{source.config.digest.removeprefix('sha256:')[:12]}"
    told = Image(name, reference=reference, id=source.config.digest, digest=source.manifest.digest, env=dict(env or {}))
    return ResolvedImage(told, nonce=env is not None, source=source)


def _guest(name: str, arch: str) -> tuple[dict[str, Path], Mapping[str, Any]]:
    if name != "hello-vm":
        return {guests.KERNEL: _built(name, arch)}, guests.UNIKERNEL[arch]
    vm = linuxvm.find_or_build(arch)
    return {guests.KERNEL: vm.kernel, guests.INITRD: vm.initrd}, guests.LINUX[arch]


def _built(name: str, arch: str, suffix: str = "") -> Path:
    """Wheels bring it; a source tree may not have it yet, or one from other sources. Versions are made from it."""
    if name in versions.NAMES:
        return versions.find_or_make(name, arch, _compiled(versions.program_of(name, arch)))
    return _compiled(f"{name}.{arch}{suffix}")


def _compiled(name: str) -> Path:
    path = build.BUILT / name
    if build.is_right(path):
        return path
    if importlib.util.find_spec("ziglang") is None:
        next_step = f"pip install ziglang=={build.COMPILER}, then python -m coldstart.workloads.build"
        raise ImageError(f"{path} is {'not the right one' if path.exists() else 'not built'}", hint=next_step)
    build.build(build.BUILT)
    return path


def _file(reference: str, base: Path) -> Path | None:
    path = _path(reference, base)
    return path if path.is_file() else None


def _found(reference: str, packaging: str, base: Path) -> Path | None:
    """The file, or a container's folder."""
    path = _path(reference, base)
    return path if path.is_file() or (packaging == DOCKER_ARCHIVE and sources.is_layout(path)) else None


def _path(reference: str, base: Path) -> Path:
    """Where it would be. ImageError if it cannot even be looked for there."""
    try:
        path = base / Path(reference).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{reference!r}: {reason}", hint="name a file that can be read") from None


def _check_tag(reference: str, packaging: str, base: Path, part: str) -> None:
    """For what is no file: could it be a tag?"""
    path = _path(reference, base)
    if path.is_dir():
        raise ImageError(f"{path}: a folder, not an image", hint="name a file in it")
    if reference.startswith((".", "/", "~")) or reference.endswith(_ARCHIVE_SUFFIXES):
        raise ImageError(f"{path}: no such file", hint=f"relative paths start from {base}")
    if packaging in (EXECUTABLE, MACHINE):
        fitting = ", ".join(name for name, kinds in _BUILT_IN.items() if packaging in kinds)
        raise ImageError(
            f"{reference!r} is neither a file in {base} nor built in", hint=f"name a {part}, or one of: {fitting}"
        )
    if not _TAG.fullmatch(reference):
        raise ImageError(f"{reference!r} cannot be an engine's tag", hint="NAME:TAG, or a path that starts with ./")


def _from_files(name: str, paths: Mapping[str, Path], packaging: str, arch: str) -> ResolvedImage:
    if packaging == EXECUTABLE:
        _check_executable(paths["program"], arch)
    else:
        _check_guest(paths, arch)
        return _resolved(name, paths, options={"arch": arch})
    return _resolved(name, paths)


def _check_guest(paths: Mapping[str, Path], arch: str) -> None:
    if guests.KERNEL in paths:
        guests.check_kernel(paths[guests.KERNEL], arch)
    elif guests.DRIVE not in paths:
        raise ImageError(f"{paths[guests.INITRD]}: nothing to boot", hint="name a kernel or a drive as well")
    if guests.DRIVE in paths:
        guests.check_drive(paths[guests.DRIVE])


def _check_executable(path: Path, arch: str) -> None:
    with path.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        raise ImageError(f"{path}: neither an ELF program nor a script with #!", hint="runtime process runs programs")
    kind, machine = struct.unpack(">HH" if head[5] == 2 else "<HH", head[16:20])
    found = _ELF_MACHINES.get(machine, f"ELF machine {machine}")
    if kind not in _ELF_PROGRAMS:
        raise ImageError(f"{path}: an ELF file, but not a program", hint="link it first")
    if found != arch:
        raise ImageError(f"{path}: a program for {found}, but the node is {arch}", hint=BY_ARCH)


def _resolved(
    name: str,
    paths: Mapping[str, Path],
    *,
    env: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ResolvedImage:
    """Whoever sets an environment is built in: only of these is it known that they echo the nonce."""
    digests = {part: layers.digest_file(path) for part, path in paths.items()}
    sizes = {part: path.stat().st_size for part, path in paths.items()}
    image = Image(name, digests, sizes, env=dict(env or {}))
    return ResolvedImage(image, paths, nonce=env is not None, options=options or {})
