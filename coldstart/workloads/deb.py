"""Debian packages, read without Debian: an `ar` archive of two compressed tar archives, control and data."""

from __future__ import annotations

import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from coldstart.errors import ImageError
from coldstart.workloads import unpack

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_BROKEN = (*unpack.BROKEN, tarfile.TarError)


class Files:
    """The files of an open archive, by their paths from the root, without a slash in front."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {posixpath.normpath(member.name): member for member in archive if member.isreg()}

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        """KeyError if there is no such file."""
        file = self._archive.extractfile(self._members[name])
        return file.read() if file else b""


def control(path: Path) -> dict[str, str]:
    """What the package says of itself: Package, Version, Architecture. Its data is not unpacked for it."""
    with _part(path, "control.tar") as files:
        text = files.read("control").decode()
    fields = (line.partition(":") for line in text.splitlines() if not line.startswith(" "))
    return {name: value.strip() for name, _, value in fields}


@contextmanager
def data(path: Path) -> Iterator[Files]:
    """What the package would install."""
    with _part(path, "data.tar") as files:
        yield files


@contextmanager
def _part(path: Path, stem: str) -> Iterator[Files]:
    """One of the two archives, unpacked into a file of its own: kernels are hundreds of MB, and read here and there."""
    try:
        with path.open("rb") as package, tempfile.TemporaryFile(prefix="coldstart-deb-") as unpacked:
            shutil.copyfileobj(unpack.stream(BytesIO(_member(package, stem)), str(path)), unpacked)
            unpacked.seek(0)
            with tarfile.open(fileobj=unpacked, mode="r:") as archive:
                yield Files(archive)
    except ImageError:
        raise
    except KeyError as error:
        raise ImageError(f"{path}: no file {error} in its {stem}", hint=_AGAIN) from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{path}: {error.strerror}", hint="name a file that can be read") from None
        raise ImageError(f"{path}: not a Debian package, or a damaged one: {error}", hint=_AGAIN) from None


_AGAIN = "fetch it again: apt-get download PACKAGE"


def _member(package: IO[bytes], stem: str) -> bytes:
    """The archive's member of that name, whatever it is compressed with."""
    if package.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin like one")
    while header := package.read(_HEADER_BYTES):
        size = int(header[48:58])
        if size < 0:
            raise ValueError("a member of negative size")
        if header.decode("ascii").startswith(stem):
            return package.read(size)
        package.seek(size + size % 2, 1)  # members begin at even places
    raise ValueError(f"no {stem} in it")
