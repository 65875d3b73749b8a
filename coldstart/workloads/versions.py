"""The reference workload in versions, to measure what an update costs.

`hello-app` and `hello-app-2` are containers that share a base of 20 MiB and the server, and differ in a small layer on
top: what is sent in layers need not be sent again. `hello-2` and `hello-unikernel-2` are the same programs with other
bytes at their end: where a file is the unit, all of it is new. Made where coldstart is used, when first asked for; the
same sources give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coldstart import archive, caches, source
from coldstart.archive import ContainerImage, File
from coldstart.errors import ImageError
from coldstart.workloads import build

BASE_BYTES = 20 << 20
VERSION_BYTES = 4 << 10
_SOURCES = (__file__, archive.__file__, source.__file__)


@dataclass(frozen=True)
class _Version:
    """of: the built program it is made from; number: which version it is; container: an image of layers."""

    of: str
    number: int
    container: bool = False


_VERSIONS: Mapping[str, _Version] = {
    "hello-app": _Version("hello", 1, container=True),
    "hello-app-2": _Version("hello", 2, container=True),
    "hello-2": _Version("hello", 2),
    "hello-unikernel-2": _Version("hello-unikernel", 2),
}
NAMES = tuple(_VERSIONS)


def program_of(name: str, arch: str) -> str:
    """The built file that it is made from."""
    return f"{_VERSIONS[name].of}.{arch}"


def find_or_make(name: str, arch: str, program: Path) -> Path:
    """In the usual place, whole and up to date. program: the file of `program_of`."""
    if _is_current(name, arch, program):
        return _path(name, arch)
    out, stamp = _path(name, arch), _stamp(name, arch)
    built = program.read_bytes()
    data = _make(name, arch, built)
    try:
        # The stamp last: what was cut short does not look finished.
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        build.write(out, data, 0o644 if _VERSIONS[name].container else 0o755)
        build.write(stamp, json.dumps([_key(built), _sha256(data)]).encode(), 0o644)
    except OSError as error:
        raise ImageError(f"{out}: {error.strerror}", hint="set XDG_CACHE_HOME to a folder with room") from None
    return out


def find(name: str, arch: str, program: Path) -> Path | None:
    """What was made last; None if it was not, or from something else."""
    return _path(name, arch) if _is_current(name, arch, program) else None


def _make(name: str, arch: str, program: bytes) -> bytes:
    version = _VERSIONS[name]
    if version.container:
        return archive.pack(_container(name, arch, program))
    return program + _noise(name, 64)  # behind the last segment: loaded by nobody, or made zero before it counts


def _container(name: str, arch: str, program: bytes) -> ContainerImage:
    version = File("opt/version", f"{_VERSIONS[name].number}\n".encode() + _noise(name, VERSION_BYTES))
    base = File("opt/runtime", _noise("hello-app base", BASE_BYTES))
    return ContainerImage(
        repository=f"coldstart.local/{name}",
        architecture=arch,
        layers=((base,), (File("hello", program, 0o755),), (version,)),
        command=("/hello",),
        ports=(build.PORT,),
        user=build.NOBODY,
        labels={"coldstart.image": name},
    )


def _noise(seed: str, size_bytes: int) -> bytes:
    """What cannot be compressed, and is the same everywhere."""
    return hashlib.shake_256(seed.encode()).digest(size_bytes)


def _is_current(name: str, arch: str, program: Path) -> bool:
    try:
        key, digest = json.loads(_stamp(name, arch).read_bytes())
        return bool(key == _key(program.read_bytes()) and digest == _sha256(_path(name, arch).read_bytes()))
    except (OSError, ValueError, TypeError):
        return False


def _key(program: bytes) -> str:
    """What it is made from."""
    return _sha256(b"".join(_sha256(data).encode() for data in (program, *(Path(p).read_bytes() for p in _SOURCES))))


def _path(name: str, arch: str) -> Path:
    return caches.folder("versions") / f"{name}.{arch}{'.docker.tar' if _VERSIONS[name].container else ''}"


def _stamp(name: str, arch: str) -> Path:
    return caches.folder("versions") / f"{name}.{arch}.stamp"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
