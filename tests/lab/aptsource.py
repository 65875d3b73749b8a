"""A node's only source of packages, on its own disk: it has no way to the Internet."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lab.node import Node

PLACE = "/var/tmp/packages"


def settle(node: Node) -> None:
    """Its packages are its own business from now on, whatever is being installed on this machine meanwhile."""
    updates = node.path("/var/lib/dpkg/updates")
    shutil.rmtree(updates)
    updates.mkdir()
    for name in ("status", "lock", "lock-frontend"):
        path = node.path(f"/var/lib/dpkg/{name}")
        path.write_bytes(path.read_bytes())


def offer(node: Node, packages: Iterable[Path]) -> None:
    """These .deb files, and nothing else."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # apt reads it as a user of its own
        for package in packages:
            shutil.copy(package, folder)
        entries = [_entry(package) for package in sorted(folder.glob("*.deb"))]
        (folder / "Packages").write_text("\n".join(entries))
        node.receive(folder, PLACE)
    take(node, f"deb [trusted=yes] file:{PLACE} ./")


def take(node: Node, source: str) -> None:
    """The one line of its sources."""
    node.run(["sh", "-c", "rm -rf /etc/apt/sources.list.d; cat >/etc/apt/sources.list"], text=f"{source}\n")


def forget(node: Node, name: str, *packages: str) -> None:
    """Remove packages as if nothing had ever wanted them: relations to anything called like that are gone."""
    status = node.path("/var/lib/dpkg/status")
    relations = re.compile(r"^((?:Pre-)?Depends|Recommends): (.*)\n", re.MULTILINE)
    status.write_text(relations.sub(lambda line: _without(line, name), status.read_text()))
    done = node.run(["dpkg", "--remove", *packages], check=False)
    assert done.returncode == 0, done.stderr


def build(folder: Path, name: str, program: str, postinst: str) -> Path:
    """A package that brings one program, and what is run when it is installed."""
    root = folder / name
    for path, text in ((f"usr/bin/{name}", program), ("DEBIAN/postinst", postinst)):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(f"#!/bin/sh\nset -e\n{text}\n")
        (root / path).chmod(0o755)
    fields = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "lab", "Description": "lab"}
    (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    package = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, package], check=True, capture_output=True)
    return package


def _entry(package: Path) -> str:
    fields = subprocess.run(["dpkg-deb", "--field", package], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{fields}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"


def _without(line: re.Match[str], name: str) -> str:
    """But for the parts that name it; dpkg reads no empty relation."""
    kept = [part for part in line[2].split(", ") if name not in part]
    return f"{line[1]}: {', '.join(kept)}\n" if kept else ""
