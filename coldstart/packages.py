"""Distributions: which one a node runs, and what it calls what we ask for. Pure; `check` and `prepare` share it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEBIAN, FEDORA, RHEL, ALPINE = "debian", "fedora", "rhel", "alpine"
# The first that names one of a system's ids counts: RHEL's relatives call themselves like Fedora as well.
FAMILIES: Mapping[str, frozenset[str]] = {
    DEBIAN: frozenset({"debian", "ubuntu", "raspbian"}),
    RHEL: frozenset({"rhel", "centos", "rocky", "almalinux", "ol"}),
    FEDORA: frozenset({"fedora"}),
    ALPINE: frozenset({"alpine"}),
}
OTHERS = frozenset({"amzn"})  # like Fedora by their own account, with packages of other names
INSTALL = {DEBIAN: "apt-get install", FEDORA: "dnf install", RHEL: "dnf install", ALPINE: "apk add"}
# What is asked for: by family. What a family lacks, its own repositories lack.
PACKAGES: Mapping[str, Mapping[str, str]] = {
    "python": {DEBIAN: "python3", FEDORA: "python3", RHEL: "python3", ALPINE: "python3"},
    "docker": {DEBIAN: "docker.io", FEDORA: "moby-engine", ALPINE: "docker"},
    "podman": {DEBIAN: "podman", FEDORA: "podman", RHEL: "podman", ALPINE: "podman"},
    "qemu-x86_64": {DEBIAN: "qemu-system-x86", FEDORA: "qemu-system-x86-core", ALPINE: "qemu-system-x86_64"},
    "qemu-aarch64": {DEBIAN: "qemu-system-arm", FEDORA: "qemu-system-aarch64-core", ALPINE: "qemu-system-aarch64"},
    "chrony": {DEBIAN: "chrony", FEDORA: "chrony", RHEL: "chrony", ALPINE: "chrony"},
    "sudo": {DEBIAN: "sudo", FEDORA: "sudo", RHEL: "sudo", ALPINE: "sudo"},
}
# What to do where a family has none: RHEL's only QEMU is /usr/libexec/qemu-kvm, for libvirt.
ELSEWHERE: Mapping[str, str] = {
    "docker": "not in this distribution: Docker's own repository has it (https://docs.docker.com/engine/install/)",
    "qemu-x86_64": "not in this distribution: build qemu-system-x86_64, or measure containers and processes there",
    "qemu-aarch64": "not in this distribution: build qemu-system-aarch64, or measure containers and processes there",
}


@dataclass(frozen=True)
class Distribution:
    """name: as it calls itself; ids: its ID, then those it is like; family: '' if its packages are not known."""

    name: str
    ids: tuple[str, ...]
    family: str
    is_pi: bool = False  # Raspberry Pi OS, which boots without the memory control group

    def package(self, wanted: str) -> str:
        """'' if there is none."""
        return PACKAGES[wanted].get(self.family, "")


def parse_os_release(text: str, rpi_issue: str = "") -> Distribution:
    """Of /etc/os-release; rpi_issue: /etc/rpi-issue, which Raspberry Pi OS has beside it, calling itself Debian."""
    said = dict(pair for line in text.splitlines() if (pair := _assignment(line)))
    ids = tuple(word.lower() for word in [said.get("ID", ""), *said.get("ID_LIKE", "").split()] if word)
    is_pi = bool(rpi_issue.strip()) or "raspbian" in ids
    name = said.get("PRETTY_NAME") or said.get("NAME") or said.get("ID", "")
    family = "" if "OSTREE_VERSION" in said else family_of(ids)  # an image that no package is installed into
    return Distribution(f"Raspberry Pi OS ({name})" if is_pi else name, ids, family, is_pi)


def family_of(ids: Sequence[str]) -> str:
    """Of a system's ID and ID_LIKE."""
    words = set(ids)
    return next((name for name, known in FAMILIES.items() if known & words and not OTHERS & words), "")


def _assignment(line: str) -> tuple[str, str] | None:
    """`NAME=value`, quoted as for a shell."""
    name, equals, value = line.strip().partition("=")
    if not equals or name.startswith("#"):
        return None
    try:
        return name, " ".join(shlex.split(value))
    except ValueError:
        return name, value.strip("\"'")
