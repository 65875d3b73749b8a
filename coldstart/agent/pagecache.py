"""The page cache of a set of files: evict it, fill it, ask how much of it is there.

Only this kernel's page cache is meant ("guest page cache only" in a VM: what the host below caches is out of reach).
mincore(2) tells the truth only to a file's owner or to who may write it; to others every page looks resident, which
makes a cold start look warm (`not-cold`), never the other way round.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 1 << 20


def flush(files: Sequence[str]) -> None:
    """Write dirty pages out: a dirty page cannot be evicted."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def evict(files: Sequence[str]) -> None:
    """Ask the kernel to forget the files' clean, unmapped pages; `resident` says whether it did."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def fill(files: Sequence[str]) -> None:
    """Read every byte once."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(_READ_BYTES):
                pass


def size(files: Sequence[str]) -> int:
    """Bytes in all files."""
    return sum(os.stat(path).st_size for path in files)


def resident(files: Sequence[str]) -> int:
    """Bytes of the files that are in the page cache, in whole pages but never more than the files have."""
    return sum(_resident(path) for path in files)


def _resident(path: str) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        length = os.fstat(fd).st_size
        if length == 0:
            return 0
        # A private copy-on-write mapping: ctypes wants a writable buffer, the file is never written.
        with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            return min(length, _resident_pages(mapping, length) * mmap.PAGESIZE)
    finally:
        os.close(fd)


def _resident_pages(mapping: mmap.mmap, length: int) -> int:
    pages = (length + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    vector = (ctypes.c_ubyte * pages)()
    anchor = ctypes.c_char.from_buffer(mapping)
    try:
        if _libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(length), vector) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        del anchor  # or the mapping could not be closed
    return sum(byte & 1 for byte in vector)


def make(start: str, files: Sequence[str]) -> dict[str, int]:
    """Evict the files for a `page-cold` start, fill the cache with them for any other.

    Returns bytes: `files` (all of them), `before` (resident as found), `start` (resident now).
    """
    before = resident(files)
    if start == "page-cold":
        evict(files)
        if resident(files):  # perhaps written since: an image that was absent in the boot before
            flush(files)
            evict(files)
    else:
        fill(files)
    return {"files": size(files), "before": before, "start": resident(files)}
