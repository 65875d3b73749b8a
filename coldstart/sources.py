"""Container images in files, as content: `docker save` archives and OCI layouts.

Where one tar is both, the OCI layout is read: its manifest is the image's own, so its digest is the one that a
registry has for it, and everything in it is named by digest. If that half is damaged, the whole file is refused: the
other half could only be believed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from coldstart import caches, dockerarchive, layers, layout, outer
from coldstart.errors import ImageError
from coldstart.outer import AGAIN, BROKEN, Outer
from coldstart.source import READ_BYTES, Source

MAX_UNPACKED_BYTES = 4 * layers.MAX_UNPACKED_BYTES
_OPENERS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (layers.GZIP, gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


def read(path: Path, arch: str) -> Source:
    """The image for `arch` (`x86_64`) in this file, or below this folder; verified to the last byte. ImageError says
    what is wrong. What was verified is remembered for as long as its file stays the same."""
    try:
        found = _outer(path)
        if found.find(layout.MARK) or (found.find(layout.INDEX) and not found.find(dockerarchive.MANIFEST)):
            return layout.read(found, arch)
        return dockerarchive.read(found, arch)
    except BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{path}: {error.strerror}", hint="name a file that can be read") from None
        what = f"not a tar archive, or a damaged one: {outer.first_line(error)}"
        raise ImageError(f"{path}: {what}", hint=AGAIN) from None


def is_layout(path: Path) -> bool:
    """Whether it is a folder with an OCI layout."""
    return (path / layout.MARK).is_file()


def _outer(path: Path) -> Outer:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        if not is_layout(path):
            hint = "name a file in it, or convert it: skopeo copy dir:DIR oci:NEW"
            raise ImageError(f"{path}: a folder without an OCI layout, not an image", hint=hint)
        return outer.folder(path)
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: not a file", hint="name a file that can be read")
    return outer.tar(_plain(path), path)


def _plain(path: Path) -> Path:
    """The tar itself: unpacked once, because layers are read from where they lie."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(layers.ZSTD):
        raise ImageError(f"{path}: compressed with zstd as a whole", hint=f"unpack it first: zstd -d {path}")
    opener = next((opener for magic, opener in _OPENERS if head.startswith(magic)), None)
    if opener is None:
        return path
    unpack = opener

    def make(file: IO[bytes]) -> None:
        with unpack(path) as packed:
            _copy(packed, file)

    return caches.fetch(caches.folder("images") / f"unpacked-{layers.digest_file(path)}.tar", make)


def _copy(packed: IO[bytes], file: IO[bytes]) -> None:
    """Up to a limit: some kB can claim to be a disk full."""
    while data := packed.read(READ_BYTES):
        file.write(data)
        if file.tell() > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
