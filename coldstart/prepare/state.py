"""What a node says of itself, asked by commands that change nothing, and understood. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from coldstart.agent import surveyparse
from coldstart.packages import ALPINE, DEBIAN, PACKAGES, Distribution, parse_os_release
from coldstart.prepare.shell import Ran

SYSTEMD, OPENRC = "systemd", "openrc"
BOOT_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
DOCKER = (
    *("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/snap/bin/docker", "/opt/docker-desktop"),
    *("/run/docker.sock", "/var/run/docker.sock"),
)
_PATHS = (
    *("/run/systemd/system", "/run/openrc", "/dev/kvm", *BOOT_FILES, *DOCKER),
    *("/usr/bin/podman", "/usr/local/bin/podman"),
    *(f"{folder}/qemu-system-{arch}" for folder in ("/usr/bin", "/usr/local/bin") for arch in ("x86_64", "aarch64")),
)
_FILES = (
    *("/etc/os-release", "/etc/rpi-issue", "/etc/group", "/proc/cgroups", "/sys/fs/cgroup/cgroup.controllers"),
    *BOOT_FILES,
)
_ANY_NODE: Mapping[str, tuple[str, ...]] = {  # few: each may have to wait for a login shell's start-up files
    "files": ("grep", "-sH", "^", *_FILES),
    "arch": ("uname", "-m"),
    "user": ("id", "-un"),
    "paths": ("ls", "-d", *_PATHS),
    "kvm": ("test", "-w", "/dev/kvm"),
}
_APT: Mapping[str, tuple[str, ...]] = {
    "lists": ("find", "/var/lib/apt/lists", "-name", "*Packages*", "-mtime", "-1"),
    "policy": ("apt-cache", "policy", *(names[DEBIAN] for names in PACKAGES.values())),
    "dpkg-updates": ("ls", "/var/lib/dpkg/updates"),
}
_MANAGERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    SYSTEMD: {
        "docker-unit": ("systemctl", "is-enabled", "docker.service"),
        "docker-active": ("systemctl", "is-active", "docker.service", "docker.socket"),
    },
    OPENRC: {"docker-status": ("rc-service", "docker", "status")},
}


@dataclass(frozen=True)
class State:
    """said: how each question was answered; interpreter: the Python that the node is to be measured with."""

    said: Mapping[str, Ran]
    interpreter: str = "python3"

    def text(self, name: str) -> str:
        return self.said[name].stdout if name in self.said else ""

    def file(self, path: str) -> str:
        """Its text; '' if it is not there. grep puts its name before every line."""
        begin = f"{path}:"
        lines = self.text("files").splitlines(keepends=True)
        return "".join(line.removeprefix(begin) for line in lines if line.startswith(begin))

    @property
    def distribution(self) -> Distribution:
        return parse_os_release(self.file("/etc/os-release"), self.file("/etc/rpi-issue"))

    @property
    def family(self) -> str:
        return self.distribution.family

    @property
    def arch(self) -> str:
        return self.text("arch").strip()

    @property
    def user(self) -> str:
        return self.text("user").strip()

    def has(self, *paths: str) -> bool:
        """Any of them."""
        return not set(paths).isdisjoint(self.text("paths").split())

    @property
    def manager(self) -> str:
        """Of services; '' where there is none."""
        if self.has("/run/systemd/system"):
            return SYSTEMD
        return OPENRC if self.family == ALPINE and self.has("/run/openrc") else ""

    @property
    def python(self) -> tuple[int, int] | None:
        """Its version; None if there is none."""
        ran = self.said.get("python")
        match = re.search(r"^Python (\d+)\.(\d+)", ran.stdout + ran.stderr, re.MULTILINE) if ran else None
        return (int(match[1]), int(match[2])) if match else None

    @property
    def groups(self) -> dict[str, list[str]]:
        """Every group's members, as from the next login on."""
        lines = [line.split(":") for line in self.file("/etc/group").splitlines()]
        return {parts[0]: parts[3].split(",") for parts in lines if len(parts) == 4}

    @property
    def has_engine(self) -> bool:
        """Of whatever origin: a second one beside it would be one too many."""
        return self.has(*DOCKER)

    @property
    def engine_is_managed(self) -> bool:
        """There is a service of that name; one that is masked is somebody's choice."""
        return self.manager == OPENRC or self.text("docker-unit").strip() not in ("", "not-found", "masked")

    @property
    def engine_runs(self) -> bool:
        return "active" in self.text("docker-active").split() or "started" in self.text("docker-status")

    @property
    def can_use_kvm(self) -> bool:
        return self.said["kvm"].code == 0

    @property
    def memory_cgroup(self) -> str:
        """`on`, `off`, or '' if it cannot be told."""
        return surveyparse.parse_memory_controller(
            self.file("/proc/cgroups"), self.file("/sys/fs/cgroup/cgroup.controllers")
        )

    @property
    def boot_file(self) -> str:
        return next((path for path in BOOT_FILES if self.has(path)), "")

    @property
    def dpkg_was_interrupted(self) -> bool:
        return bool(self.text("dpkg-updates").strip())

    def knows(self, package: str) -> bool:
        """apt could install it, by lists that are at most a day old."""
        policy = re.search(rf"^{re.escape(package)}:\n.*\n +Candidate: (.*)$", self.text("policy"), re.MULTILINE)
        return bool(self.text("lists").strip() and policy and policy[1] != "(none)")


def questions(interpreter: str) -> dict[str, tuple[str, ...]]:
    """What any node is asked, as commands."""
    return {**_ANY_NODE, "python": (interpreter, "--version")}


def further_questions(state: State) -> dict[str, tuple[str, ...]]:
    """What depends on the answers."""
    return {
        **(_APT if state.family == DEBIAN else {}),
        **_MANAGERS.get(state.manager, {}),
    }
