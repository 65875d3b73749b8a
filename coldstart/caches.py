"""Files that coldstart makes for itself on the controller: large, and made again if they are gone."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from coldstart.errors import ImageError

UNUSED_S = 30 * 24 * 3600  # what nobody has asked for so long is removed
HALF_S = 3600  # what nobody has written to for so long is not being made any more: its maker was killed
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_ONE_MAKER = threading.Lock()  # what fifty nodes want is made once


def folder(name: str) -> Path:
    """Where such files lie, by kind."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path here is invalid and to be ignored.
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "coldstart" / name


def fetch(path: Path, make: Callable[[IO[bytes]], None]) -> Path:
    """The file at `path`; `make` writes it unless it is there, and it appears whole or not at all. Its name must say
    what is in it. ImageError if there is no room; what else `make` raises is its own."""
    with _ONE_MAKER:
        try:
            if not _used(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove_unused(path.parent)
                _make(path, make)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            hint = "set XDG_CACHE_HOME to a folder with room"
            raise ImageError(f"{path.parent}: {error.strerror}", hint=hint) from None
    return path


def _make(path: Path, make: Callable[[IO[bytes]], None]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}.", delete=False) as file:
        try:
            make(file)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _used(path: Path) -> bool:
    """Only the time of access: who reads the file meanwhile relies on the other one."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _remove_unused(where: Path) -> None:
    for path in where.iterdir():
        with suppress(OSError):
            found, now_s = path.stat(), time.time()
            half = path.name.startswith(".") and found.st_mtime < now_s - HALF_S
            if half or found.st_atime < now_s - UNUSED_S:
                path.unlink()
