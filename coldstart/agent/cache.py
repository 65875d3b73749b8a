"""Images on the node's disk, by content: `<sha256>` is complete and verified, `<sha256>.part` is not.

The only thing a node keeps. A push that was cut goes on where it stopped; a wrong digest starts over.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any


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
        self._sizes: dict[str, int] = {}  # of what was offered

    def offered(self, sha256: str, size_bytes: int) -> tuple[str, dict[str, Any]]:
        """What to answer: whether it is here, or how much of it."""
        self._sizes[sha256] = size_bytes
        if self.file(sha256):
            return "have", {"sha256": sha256}
        return "need", {"sha256": sha256, "offset": self.begun(sha256, size_bytes)}

    def chunk(self, sha256: str, data: bytes) -> tuple[str, dict[str, Any]]:
        """Keep the next piece; what to answer. Every piece has an answer: on a slow link they are the sign of life."""
        try:
            complete = self.add(sha256, data, self._sizes.get(sha256, 0))
        except (BadContent, OSError) as error:
            return "refused", {"sha256": sha256, "reason": str(error)}
        return "have" if complete else "got", {"sha256": sha256}

    def file(self, sha256: str) -> str:
        """Where a complete blob is; '' if it is not there."""
        path = os.path.join(self._path, sha256)
        return path if os.path.isfile(path) else ""

    def begun(self, sha256: str, size_bytes: int) -> int:
        """Bytes of an incomplete blob of this size that an earlier push brought; more than that is thrown away."""
        path = self._part(sha256)
        held = os.stat(path).st_size if os.path.isfile(path) else 0
        if held > size_bytes:
            os.unlink(path)
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
        if held > size_bytes or _sha256(part) != sha256:
            os.unlink(part)
            raise BadContent(f"{sha256[:12]}: what arrived has another digest")
        os.chmod(part, stat.S_IRUSR | stat.S_IXUSR)
        os.rename(part, os.path.join(self._path, sha256))
        return True

    def empty(self) -> list[str]:
        """Remove every blob; say which."""
        names = [name for name in os.listdir(self._path) if len(name.partition(".")[0]) == 64]
        for name in names:
            os.unlink(os.path.join(self._path, name))
        return [f"image {name[:12]}" for name in names]

    def _part(self, sha256: str) -> str:
        return os.path.join(self._path, f"{sha256}.part")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
