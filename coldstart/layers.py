"""A layer is read once: what it hashes to as it is stored and unpacked, and how much it holds.

What was found is remembered for as long as the file stays the same, so that fifty nodes do not hash one image fifty
times. One is read at a time, for the same reason. The standard library cannot unpack zstd: of such a layer only the
stored bytes are hashed, and whether they unpack to what the config says shows when an engine takes it.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

from coldstart.errors import ImageError
from coldstart.outer import BROKEN, MAX_HEADER_BYTES, Extent, first_line, safe
from coldstart.source import READ_BYTES

MAX_UNPACKED_BYTES = 64 << 30
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ONE_READER = threading.Lock()

_Identity = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """digest: of the stored bytes; compression: as a suffix of its media type; diff_id, unpacked_bytes: None if it
    cannot be unpacked here. damage: what is wrong with it; then nothing else counts."""

    digest: str = ""
    compression: str = ""
    diff_id: str | None = None
    unpacked_bytes: int | None = None
    damage: str = ""


def measure(extent: Extent) -> Layer:
    """What this layer is. ImageError if its file changes meanwhile."""
    with _ONE_READER:
        identity = _identity(extent.path)
        found = _measured(extent, identity)
        _check_same(extent.path, identity)
        return found


def digest_file(path: Path) -> str:
    """64 hex digits. Remembered as well."""
    with _ONE_READER:
        identity = _identity(path)
        found = _digested(path, identity)
        _check_same(path, identity)
        return found


def _identity(path: Path) -> _Identity:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_same(path: Path, identity: _Identity) -> None:
    if _identity(path) != identity:
        raise ImageError(f"{path}: it changed while it was read", hint="try again when it is complete")


@lru_cache(maxsize=256)
def _digested(path: Path, _: _Identity) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _measured(extent: Extent, _: _Identity) -> Layer:
    with extent.path.open("rb") as file:
        magic = _head(file, extent)
        stored = _Forward(file, extent.size_bytes)
        try:
            return _read(stored, magic, extent.size_bytes)
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's fault: another time it may be read
            return Layer(damage=first_line(error))


def _head(file: Any, extent: Extent) -> bytes:
    file.seek(extent.offset)
    magic: bytes = file.read(min(len(ZSTD), extent.size_bytes))
    file.seek(extent.offset)
    return magic


def _read(stored: _Forward, magic: bytes, size_bytes: int) -> Layer:
    if magic == ZSTD:
        stored.seek(size_bytes)
        return Layer(stored.digest(), "+zstd", None, None, _cut_short(stored, size_bytes))
    is_packed = magic.startswith(GZIP)
    unpacked = (
        _Forward(gzip.GzipFile(fileobj=cast(Any, stored), mode="rb"), MAX_UNPACKED_BYTES) if is_packed else stored
    )
    held_bytes = sum(member.size for member in _members(unpacked) if member.isreg())
    unpacked.seek(MAX_UNPACKED_BYTES)
    if unpacked.tell() == MAX_UNPACKED_BYTES:
        return Layer(damage=f"it unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
    stored.seek(size_bytes)
    compression = "+gzip" if is_packed else ""
    return Layer(stored.digest(), compression, unpacked.digest(), held_bytes, _cut_short(stored, size_bytes))


def _cut_short(stored: _Forward, size_bytes: int) -> str:
    return "" if stored.tell() == size_bytes else "it is cut short"


def _members(file: _Forward) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=cast(Any, file), mode="r:") as layer:
        while (member := layer.next()) is not None:
            # Some builders write `/bin/x` or `./bin/x`; engines take both as from the image's root.
            safe(member.name.lstrip("/"))
            yield member
            cast(Any, layer).members.clear()  # a layer may hold a million files


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Forward:
    """A file that is read from its beginning to its end, hashed on the way: as much of one as tarfile needs."""

    def __init__(self, file: _Readable, limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes
        self._at = 0
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        data = self._file.read(min(size, self._limit_bytes - self._at))
        self._at += len(data)
        self._hash.update(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, at: int) -> None:
        while self._at < at and self.read(min(at - self._at, READ_BYTES)):
            pass

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"
