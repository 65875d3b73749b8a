"""Images on the node's disk, by content: `<sha256>` is complete and verified, `<sha256>.part` is not.

The only thing a node keeps. A push that was cut goes on where it stopped; a wrong digest starts over.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO


class BadContent(Exception):
    """What arrived is not what was offered."""


def folder(environ: Mapping[str, str]) -> str:
    """$XDG_CACHE_HOME/coldstart, made if it is missing; 0700, because what lies here is run."""
    base = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(base, "coldstart")
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.stat(path).st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    return path


class Cache:
    """The blobs of one folder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def file(self, sha256: str) -> str:
        """Where a complete blob is; '' if it is not there."""
        path = os.path.join(self._path, sha256)
        return path if os.path.isfile(path) else ""

    def begun(self, sha256: str, size_bytes: int) -> int:
        """Bytes of an incomplete blob of this size that an earlier push brought; more than that is thrown away."""
        held = self.held(sha256)
        if held > size_bytes:
            self.drop(sha256)
            return 0
        return held

    def add(self, sha256: str, data: bytes, size_bytes: int) -> bool:
        """Append to the blob. True once it is complete; BadContent, and nothing kept, if it is not what was offered."""
        part = self._part(sha256)
        with open(part, "ab", buffering=0) as file:
            before = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(before)  # the next push goes on from here
                raise
            held = file.tell()
        if held < size_bytes:
            return False
        with open(part, "rb") as file:
            found = _sha256(file).hexdigest()
            os.fsync(file.fileno())
        self._accept(sha256, found)
        return True

    def take(self, sha256: str, blocks: Iterable[bytes], *, durable: bool = True) -> None:
        """What is missing of the blob, in one go. BadContent, and nothing kept, if the whole is not what it should be;
        whatever else is raised leaves what has come. durable: it has its valid name only once the disk has it, so that
        a power cut leaves no empty file under that name."""
        with self.growing(sha256) as part:
            digest = _sha256(part)
            for data in blocks:
                part.write(data)
                digest.update(data)
            if durable:
                part.flush()
                os.fsync(part.fileno())
        self._accept(sha256, digest.hexdigest())

    @contextmanager
    def growing(self, sha256: str) -> Iterator[BinaryIO]:
        """What is there of the blob, to be read from its beginning and appended to."""
        with open(self._part(sha256), "a+b") as part:
            part.seek(0)
            yield part

    def held(self, sha256: str) -> int:
        """Bytes of an incomplete blob."""
        path = self._part(sha256)
        return os.stat(path).st_size if os.path.isfile(path) else 0

    def drop(self, sha256: str) -> None:
        """Forget a blob, complete or not."""
        for path in (os.path.join(self._path, sha256), self._part(sha256)):
            if os.path.lexists(path):
                os.unlink(path)

    def _accept(self, sha256: str, found: str) -> None:
        part = self._part(sha256)
        if found != sha256:
            os.unlink(part)
            raise BadContent(f"{sha256[:12]}: what arrived has another digest")
        os.chmod(part, stat.S_IRUSR | stat.S_IXUSR)
        os.rename(part, os.path.join(self._path, sha256))

    def empty(self) -> list[str]:
        """Remove every blob; say which."""
        names = [name for name in os.listdir(self._path) if len(name.partition(".")[0]) == 64]
        for name in names:
            os.unlink(os.path.join(self._path, name))
        return [f"image {name[:12]}" for name in names]

    def _part(self, sha256: str) -> str:
        return os.path.join(self._path, f"{sha256}.part")


def _sha256(file: BinaryIO) -> Any:
    """Of the rest of it."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest
