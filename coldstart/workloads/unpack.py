"""Compressed bytes, told apart by how they begin: gzip, xz and, where this Python or a program can, zstd."""

from __future__ import annotations

import gzip
import importlib
import io
import lzma
import shutil
import subprocess
import zlib
from typing import IO, Protocol

from coldstart.errors import ImageError

# What damaged bytes raise.
BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def unpack(data: bytes, name: str) -> bytes:
    """The bytes behind `data`; what is not compressed stays as it is. name: for errors."""
    try:
        return stream(io.BytesIO(data), name).read()
    except BROKEN as error:
        raise ImageError(f"{name}: damaged: {error}", hint="fetch it again") from None


def stream(file: IO[bytes], name: str) -> Readable:
    """The same for a file that is too large to be held; damage shows while it is read, as one of BROKEN."""
    head = file.read(len(_XZ))
    file.seek(0)
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(_XZ):
        return lzma.LZMAFile(file)
    if head.startswith(_ZSTD):
        return io.BytesIO(_unpack_zstd(file.read(), name))
    return file


def _unpack_zstd(data: bytes, name: str) -> bytes:
    """By the standard library from Python 3.14 on, else by the program that systems with such kernels have."""
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        return _unpack_with_program(data, name)
    try:
        return bytes(zstd.decompress(data))
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from None


def _unpack_with_program(data: bytes, name: str) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise ImageError(
            f"{name}: compressed with zstd, which Python reads from 3.14 on",
            hint="install the program zstd (apt-get install zstd), which is then used instead",
        )
    done = subprocess.run([program, "-dcq"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    return done.stdout
