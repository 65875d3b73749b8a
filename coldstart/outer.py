"""What a container image travels in: a tar, or a folder. Files are found in it without unpacking anything.

A tar is read by its headers alone, and refused if they do not lead to its end mark: what was cut off, or lies behind
a damaged header, would otherwise look as if it had never been there.
"""

from __future__ import annotations

import json
import lzma
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from coldstart.errors import ImageError

MAX_JSON_BYTES = 4 << 20  # a manifest or config is some KiB; do not let a broken one fill the memory
MAX_HEADER_BYTES = 1 << 20  # of one member: names, and what else tar puts before it
MAX_FILES = 20_000
# What tarfile and its friends raise on damaged bytes; MemoryError is a header that claims exabytes.
BROKEN = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(OSError, ValueError, OverflowError, RecursionError, MemoryError),
)
AGAIN = "write it again: docker save -o FILE IMAGE"
UNTRUSTED = "do not trust it; build or save the image anew"
_MAX_LINKS = 4
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Extent:
    """Bytes of a file."""

    path: Path
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size_bytes)


@dataclass(frozen=True)
class Outer:
    """path: in the user's words, for complaints; find: where the file of that name lies, None if there is none."""

    path: Path
    find: Callable[[str], Extent | None]

    def get(self, name: str) -> Extent:
        found = self.find(name)
        if found is None:
            raise self.error(f"{name} is missing in it")
        return found

    def document(self, name: str) -> bytes:
        """A small file."""
        extent = self.get(name)
        if extent.size_bytes > MAX_JSON_BYTES:
            raise self.error(f"{name} has {extent.size_bytes} bytes: no description of an image is so long", UNTRUSTED)
        return extent.read()

    def json(self, data: bytes, what: str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.error(f"{what} is damaged: no JSON: {first_line(error)}") from None

    def object(self, data: bytes, what: str) -> dict[str, Any]:
        value = self.json(data, what)
        if not isinstance(value, dict):
            raise self.error(f"{what} is not a JSON object")
        return value

    def text(self, values: Mapping[str, Any], name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str) or not value:
            raise self.error(f"its description has no {name}")
        return value

    def texts(self, values: Mapping[str, Any], name: str) -> list[str]:
        found = values.get(name) or []  # null where there are none
        if not isinstance(found, list) or not all(isinstance(value, str) and value.isprintable() for value in found):
            raise self.error(f"{name} in its description is not a list of names")
        return found

    def error(self, what: str, hint: str = AGAIN) -> ImageError:
        return ImageError(f"{self.path}: {what}", hint=hint)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")


def safe(name: str) -> str:
    """A path from the root of an archive, in its shortest form. ValueError if it climbs out."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"the path {name!r} climbs out of it")
    return posixpath.normpath(name)


# --- a folder ---


def folder(path: Path) -> Outer:
    """Links are the user's own: they may lead anywhere, the digest tells whether it is the right thing."""

    def find(name: str) -> Extent | None:
        file = path / safe(name)
        try:
            found = file.stat()
        except FileNotFoundError:
            return None
        return Extent(file, 0, found.st_size) if stat.S_ISREG(found.st_mode) else None

    return Outer(path, find)


# --- a tar ---


class Headers:
    """A tar's file as tarfile is to see it: nothing is read at once that only a hostile archive has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return self._file.read(size)


def tar(path: Path, name: Path) -> Outer:
    """name: in the user's words, where `path` is only a copy of what they named."""
    members = _members(path, name)

    def find(wanted: str) -> Extent | None:
        """Through the links that `docker save` writes in place of layers it has already."""
        try:
            at = safe(wanted)
            for _ in range(_MAX_LINKS):
                member = members.get(at)
                if member is None or isinstance(member, Extent):
                    return member
                at = safe(member)
        except ValueError as error:
            raise ImageError(f"{name}: {error}", hint=UNTRUSTED) from None
        raise ImageError(f"{name}: {wanted} is a link without an end in it", hint=AGAIN)

    return Outer(name, find)


def _members(path: Path, name: Path) -> dict[str, Extent | str]:
    """Files, and where links lead; the last of a name counts, as for whoever unpacks it."""
    size_bytes = path.stat().st_size
    found: dict[str, Extent | str] = {}
    with path.open("rb") as file, tarfile.open(fileobj=Headers(file), mode="r:") as archive:  # type: ignore[call-overload]  # it needs no more of a file than this
        for count, member in enumerate(archive):
            _check(member, count, size_bytes, name)
            at = safe(member.name)
            if member.isreg() and not member.issparse():
                found[at] = Extent(path, member.offset_data, member.size)
            elif member.islnk() or member.issym():
                start = posixpath.dirname(at) if member.issym() else ""
                found[at] = posixpath.normpath(posixpath.join(start, member.linkname))
        file.seek(archive.offset)
        mark = file.read(_BLOCK_BYTES)
    if len(mark) < _BLOCK_BYTES or mark.strip(b"\0"):
        raise ImageError(f"{name}: a damaged archive: it breaks off at byte {archive.offset}", hint=AGAIN)
    return found


def _check(member: tarfile.TarInfo, count: int, size_bytes: int, name: Path) -> None:
    if count >= MAX_FILES:
        raise ImageError(f"{name}: more than {MAX_FILES} files: not what `docker save` writes", hint=AGAIN)
    try:
        safe(member.name)
    except ValueError as error:
        raise ImageError(f"{name}: {error}", hint=UNTRUSTED) from None
    if member.isreg() and member.offset_data + member.size > size_bytes:
        raise ImageError(f"{name}: a damaged archive: {member.name!r} is cut short in it", hint=AGAIN)
