"""What an image reference of a playbook means for one runtime and one architecture.

A built-in name; a file (it starts with `.`, `/` or `~`, or there is such a file); else, where containers are wanted, a
tag of the node's engine. Built-in names win: write `./hello` for a file of that name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from coldstart import archive
from coldstart.agent.records import Image
from coldstart.errors import ImageError
from coldstart.workloads import build

EXECUTABLE = "executable"
DOCKER_ARCHIVE = "docker-archive"
NONE = "none"

_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ELF_PROGRAMS = (2, 3)  # ET_EXEC, ET_DYN; not object files
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_TAG = re.compile(r"\w[\w./:@-]*", re.ASCII)
_BY_ARCH = "images differ by architecture: image: {x86_64: FILE, aarch64: FILE}"


@dataclass(frozen=True)
class ResolvedImage:
    """image: what the node is told; path: the file to send to it, if any; nonce: it echoes the boot's nonce."""

    image: Image
    path: Path | None = None
    nonce: bool = False


def builtin_names() -> tuple[str, ...]:
    return ("hello",)


def check(reference: str, packaging: str, base: Path) -> None:
    """ImageError if it can be said before any node is known that `resolve` will fail."""
    if packaging != NONE and reference not in builtin_names() and _file(reference, base) is None:
        _check_tag(reference, packaging, base)


def resolve(reference: str, *, packaging: str, arch: str, base: Path) -> ResolvedImage:
    """The image for a node of architecture `arch`; relative paths start from `base`. ImageError says what is wrong."""
    if packaging == NONE:
        return ResolvedImage(Image(name=reference))
    if reference in builtin_names():
        return _builtin(reference, packaging, arch)
    path = _file(reference, base)
    if path is None:
        _check_tag(reference, packaging, base)
        return ResolvedImage(Image(name=reference, reference=reference))
    try:
        return _from_file(reference, path, packaging, arch)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}", hint="name a file that can be read") from None


def _builtin(name: str, packaging: str, arch: str) -> ResolvedImage:
    if arch not in build.ARCHITECTURES:
        raise ImageError(f"{name} is built for {' and '.join(build.ARCHITECTURES)}, not for {arch}", hint=_BY_ARCH)
    env = {"COLDSTART_NONCE": "{nonce}"}
    if packaging == EXECUTABLE:
        path, tag = _built(f"{name}.{arch}"), ""
        env["COLDSTART_PORT"] = "{port}"  # a container has its own address, a process shares its node's
    else:
        path = _built(f"{name}.{arch}.docker.tar")
        tag = archive.inspect(path).tags[0]
    return ResolvedImage(_image(name, path, reference=tag, env=env), path, nonce=True)


def _built(name: str) -> Path:
    """Wheels bring it; a source tree may not have it yet, or one from other sources."""
    path = build.BUILT / name
    if build.is_right(path):
        return path
    if importlib.util.find_spec("ziglang") is None:
        next_step = f"pip install ziglang=={build.COMPILER}, then python -m coldstart.workloads.build"
        raise ImageError(f"{path} is {'not the right one' if path.exists() else 'not built'}", hint=next_step)
    build.build(build.BUILT)
    return path


def _file(reference: str, base: Path) -> Path | None:
    path = base / Path(reference).expanduser()
    return path if path.is_file() else None


def _check_tag(reference: str, packaging: str, base: Path) -> None:
    """For what is no file: could it be a tag?"""
    path = base / Path(reference).expanduser()
    if path.is_dir():
        raise ImageError(f"{path}: a folder, not an image", hint="name a file in it")
    if reference.startswith((".", "/", "~")) or reference.endswith(_ARCHIVE_SUFFIXES):
        raise ImageError(f"{path}: no such file", hint=f"relative paths start from {base}")
    if packaging == EXECUTABLE:
        raise ImageError(
            f"{reference!r} is neither a file in {base} nor built in",
            hint=f"name a program, or one of: {', '.join(builtin_names())}",
        )
    if not _TAG.fullmatch(reference):
        raise ImageError(f"{reference!r} cannot be an engine's tag", hint="NAME:TAG, or a path that starts with ./")


def _from_file(reference: str, path: Path, packaging: str, arch: str) -> ResolvedImage:
    if packaging == EXECUTABLE:
        _check_executable(path, arch)
        return ResolvedImage(_image(reference, path), path)
    info = archive.inspect(path)
    if info.architecture != arch:
        raise ImageError(f"{path}: an image for {info.architecture}, but the node is {arch}", hint=_BY_ARCH)
    return ResolvedImage(_image(reference, path, reference=(*info.tags, info.config_digest)[0]), path)


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
        raise ImageError(f"{path}: a program for {found}, but the node is {arch}", hint=_BY_ARCH)


def _image(name: str, path: Path, *, reference: str = "", env: dict[str, str] | None = None) -> Image:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Image(name=name, sha256=digest, size_bytes=path.stat().st_size, reference=reference, env=env or {})
