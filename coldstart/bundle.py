"""The agent as one deterministic zip, and the command that runs it from memory. Pure.

The zip goes over the new process's stdin, so that no named file is left on the node: a first stage of a few lines,
given as `-c`, reads exactly its length into a memory file and imports from there. Every node is sent it every time, so
what only people read stays behind, and it is compressed as a whole: half of what the zip alone would take.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable

NAME = "coldstart-agent"  # in its argv, for whoever looks at a process list
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say

# Of this project's style, which a test holds every file of the agent to.
_DOCSTRING = re.compile(r'^( *)"""(?:[^"\\]|\\.|"(?!""))*"""$', re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *#.*$", re.MULTILINE)
# -I: no PYTHON* variables, no user site; -S: no site at all, which saves a third of the start.
_FLAGS = ("-I", "-S", "-u", "-c")
# It runs under whatever Python there is, so that an old one can say so itself.
_FIRST_STAGE = """
import os, sys, zlib
if sys.version_info < (3, 9):
    sys.exit("coldstart: Python %d.%d is too old" % sys.version_info[:2])
left = int(sys.argv[1])
fd = os.memfd_create("coldstart")
unpack = zlib.decompressobj()
while left:
    data = os.read(0, min(left, 65536))
    if not data:
        sys.exit("coldstart: the bundle was cut short")
    left -= len(data)
    os.write(fd, unpack.decompress(data))
sys.path.insert(0, "/proc/self/fd/%d" % fd)
from coldstart.agent.__main__ import main
sys.exit(main())
""".strip()


@dataclass(frozen=True)
class Bundle:
    """data: the zip, compressed; sha256: of it, in hex; the same sources give the same bytes everywhere."""

    data: bytes
    sha256: str


def build() -> Bundle:
    """Zip `coldstart/agent` and the two `__init__` files it lies under."""
    root = importlib.resources.files("coldstart")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "coldstart/__init__.py", root.joinpath("__init__.py").read_bytes())
        for name, content in sorted(_sources(root.joinpath("agent"), "coldstart/agent")):
            _add(archive, name, content)
    data = zlib.compress(buffer.getvalue(), 9)
    return Bundle(data, hashlib.sha256(data).hexdigest())


def bare(source: bytes) -> bytes:
    """Without docstrings and lines of comment; every statement stays on its line, for tracebacks."""
    text = _DOCSTRING.sub(lambda found: found[1] + '""' + "\n" * found[0].count("\n"), source.decode())
    return _COMMENT.sub("", text).encode()


def command(python: str, bundle: Bundle) -> list[str]:
    """The argv that runs the agent, once `bundle.data` is written to its stdin."""
    # In hex: it passes login shells, whose ideas of quotes and newlines differ.
    return [python, *_FLAGS, f'exec(bytes.fromhex("{_FIRST_STAGE.encode().hex()}"))', str(len(bundle.data)), NAME]


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", bare(entry.read_bytes())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)
