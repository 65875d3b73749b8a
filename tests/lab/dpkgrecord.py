"""dpkg's own record of what is installed, for a root whose programs this machine cannot run: packages are unpacked and
entered as dpkg would have it, but for their maintainers' scripts. Those that are run later, by dpkg there, are in it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.network import call

PLACE = "var/lib/dpkg"
_FOLDERS = ("info", "triggers", "updates")
_EMPTY = ("available", "diversions", "statoverride", "triggers/Unincorp")
_FORMAT = "1\n"  # info/format: names with an architecture where there may be several


@dataclass(frozen=True)
class Entry:
    """Of one package. control: its paragraph, without what dpkg adds; files: what control files there are beside it."""

    control: str
    paths: tuple[str, ...]
    files: dict[str, bytes]

    @property
    def name(self) -> str:
        return self.field("Package")

    @property
    def info(self) -> str:
        """What its files in info/ begin with."""
        same = self.field("Multi-Arch") == "same"
        return f"{self.name}:{self.field('Architecture')}" if same else self.name

    def field(self, name: str) -> str:
        begin = f"{name}: "
        lines = (line for line in self.control.splitlines() if line.startswith(begin))
        return next(lines, begin).removeprefix(begin)

    def lines(self, name: str) -> list[str]:
        """Of a control file, if it is there."""
        return self.files.get(name, b"").decode().splitlines()


def unpack(package: Path, root: Path) -> Entry:
    """Into `root`. What is entered afterwards, with all others: `write`."""
    names = call("dpkg-deb", "--vextract", str(package), str(root)).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        call("dpkg-deb", "--control", str(package), folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    paths = tuple(name.rstrip("/").removeprefix(".") or "/." for name in names)
    return Entry(files.pop("control").decode(), paths, files)


def write(entries: Sequence[Entry], root: Path) -> None:
    place = root / PLACE
    for name in _FOLDERS:
        (place / name).mkdir(parents=True, exist_ok=True)
    for name in _EMPTY:
        (place / name).touch()
    (place / "info/format").write_text(_FORMAT)
    for entry in entries:
        (place / f"info/{entry.info}.list").write_text("".join(f"{path}\n" for path in entry.paths))
        for name, data in entry.files.items():
            path = place / f"info/{entry.info}.{name}"
            path.write_bytes(data)
            path.chmod(0o755 if data.startswith(b"#!") else 0o644)
    for name, lines in triggers(entries).items():
        (place / "triggers" / name).write_text("".join(f"{line}\n" for line in lines))
    status = sorted(entries, key=lambda entry: entry.name)
    (place / "status").write_text("\n".join(paragraph(entry, root) for entry in status))


def paragraph(entry: Entry, root: Path) -> str:
    """Of `status`: installed, and configuration files as they came."""
    first, _, rest = entry.control.partition("\n")
    hashes = "".join(f" {path} {digest}\n" for path, digest in _conffiles(entry, root))
    return f"{first}\nStatus: install ok installed\n{rest.rstrip()}\n" + (f"Conffiles:\n{hashes}" if hashes else "")


def triggers(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Who is to be told of what, by file name: `File` for all that are paths, and one for each other."""
    found = defaultdict(list)
    for entry in entries:
        for line in entry.lines("triggers"):
            directive, _, name = line.partition(" ")
            if not directive.startswith("interest"):
                continue
            who = f"{entry.info}/noawait" if directive == "interest-noawait" else entry.info
            found["File" if name.startswith("/") else name].append(f"{name} {who}" if name.startswith("/") else who)
    return dict(found)


def _conffiles(entry: Entry, root: Path) -> Iterator[tuple[str, str]]:
    for path in entry.lines("conffiles"):
        file = root / path.lstrip("/")
        if path.startswith("/") and file.is_file():
            yield path, hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
