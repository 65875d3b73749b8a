"""A node that answers the commands of `prepare` from memory: what is installed, who is in which group, what runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from coldstart.prepare.shell import LOOK_S, Ran

OS_RELEASE = {
    "debian": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
    "ubuntu": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
    "raspbian": 'PRETTY_NAME="Raspbian GNU/Linux 11 (bullseye)"\nNAME="Raspbian GNU/Linux"\nID=raspbian\n'
    "ID_LIKE=debian\n",
    "mint": 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Linux Mint 21.3"\n',
    "fedora": 'NAME="Fedora Linux"\nVERSION="41 (Server Edition)"\nID=fedora\nPRETTY_NAME="Fedora Linux 41"\n',
    "rhel": 'NAME="Red Hat Enterprise Linux"\nID="rhel"\nID_LIKE="fedora"\nPRETTY_NAME="Red Hat Linux 9.4"\n',
    "rocky": 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux 9.4"\n',
    "alma": 'NAME="AlmaLinux"\nID="almalinux"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="AlmaLinux 9.4"\n',
    "stream": 'NAME="CentOS Stream"\nID="centos"\nID_LIKE="rhel fedora"\nPRETTY_NAME="CentOS Stream 9"\n',
    "oracle": 'NAME="Oracle Linux Server"\nID="ol"\nID_LIKE="fedora"\nPRETTY_NAME="Oracle Linux Server 9.4"\n',
    "alpine": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n',
    "arch": 'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n',
    "suse": 'NAME="openSUSE Leap"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\nPRETTY_NAME="openSUSE Leap 15.6"\n',
    "amazon": 'NAME="Amazon Linux"\nID="amzn"\nID_LIKE="fedora"\nPRETTY_NAME="Amazon Linux 2023.5.20241001"\n',
    "silverblue": "NAME=\"Fedora Linux\"\nID=fedora\nOSTREE_VERSION='41.20241030.0'\n"
    'PRETTY_NAME="Fedora Linux 41 (Silverblue)"\n',
    "none": "",
}
RPI_ISSUE = "Raspberry Pi reference 2024-07-04\nGenerated using pi-gen\n"
BRINGS = {
    "python3": "/usr/bin/python3",
    **dict.fromkeys(("docker.io", "moby-engine", "docker"), "/usr/bin/dockerd"),
    "podman": "/usr/bin/podman",
    **dict.fromkeys(("qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86_64"), "/usr/bin/qemu-system-x86_64"),
    **dict.fromkeys(
        ("qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64"), "/usr/bin/qemu-system-aarch64"
    ),
}
DEBIANS = ("debian", "ubuntu", "raspbian", "mint")


@dataclass
class FakeNode:
    """A Shell. refuses: a command's first word that fails, and what it says; asked: every command, in order."""

    system: str = "debian"
    is_pi: bool = False
    arch: str = "x86_64"
    user: str = "root"
    sudo: str = ""  # what `sudo -n` says against it
    installed: set[str] = field(default_factory=lambda: {"/usr/bin/python3"})
    python: str = "3.11.2"
    groups: dict[str, set[str]] = field(default_factory=lambda: {"kvm": set()})
    manager: str = ""
    running: bool = False
    kvm: bool = False
    lists: bool = False
    memory: bool = False
    cmdline: str = "console=tty1 root=PARTUUID=1 rootwait\n"
    interrupted: bool = False
    is_useless: bool = False  # what is installed brings nothing
    refuses: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def is_raspberry(self) -> bool:
        return self.is_pi or self.system == "raspbian"

    def close(self) -> None:
        pass

    def run(self, argv: Sequence[str], *, limit_s: float = LOOK_S) -> Ran:
        self.asked.append(tuple(argv))
        if tuple(argv[:3]) != ("sudo", "-n", "--"):
            return self._run(list(argv))
        if self.sudo:
            return Ran(1, "", self.sudo)
        self.user, user = "root", self.user
        try:
            return self._run(list(argv[3:]))
        finally:
            self.user = user

    def _run(self, words: list[str]) -> Ran:
        while words[0] == "env" or "=" in words[0]:
            words = words[1:]
        for named in (words[0], " ".join(words[:2])):
            if named in self.refuses:
                return Ran(100, "", self.refuses[named])
        return getattr(self, "_" + re.sub(r"\W", "_", words[0].rpartition("/")[2]))(words[1:])

    # -- looking

    def _grep(self, words: list[str]) -> Ran:
        memory = int(self.memory)
        texts = {
            "/etc/os-release": OS_RELEASE[self.system],
            "/etc/rpi-issue": RPI_ISSUE if self.is_pi else "",
            "/etc/group": "".join(f"{name}:x:9:{','.join(sorted(users))}\n" for name, users in self.groups.items()),
            "/proc/cgroups": f"#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t{memory}\n",
            "/boot/firmware/cmdline.txt": self.cmdline if self.is_raspberry else "",
        }
        assert words[:2] == ["-sH", "^"]
        lines = [f"{path}:{line}\n" for path in words[2:] for line in texts.get(path, "").splitlines()]
        return Ran(2, "".join(lines))

    def _uname(self, words: list[str]) -> Ran:
        return Ran(0, f"{self.arch}\n")

    def _id(self, words: list[str]) -> Ran:
        return Ran(0, f"{self.user}\n")

    def _true(self, words: list[str]) -> Ran:
        return Ran(0)

    def _ls(self, words: list[str]) -> Ran:
        if words == ["/var/lib/dpkg/updates"]:
            return Ran(0, "0001\n" if self.interrupted else "")
        there = {*self.installed, {"systemd": "/run/systemd/system", "openrc": "/run/openrc"}.get(self.manager, "")}
        there |= {"/dev/kvm"} if self.kvm else set()
        there |= {"/boot/firmware/cmdline.txt"} if self.is_raspberry else set()
        return Ran(2, "".join(f"{word}\n" for word in words if word in there))

    def _test(self, words: list[str]) -> Ran:
        return Ran(int(not self.kvm or (self.user != "root" and self.user not in self.groups.get("kvm", ()))))

    def _python3(self, words: list[str]) -> Ran:
        return Ran(0, f"Python {self.python}\n") if "/usr/bin/python3" in self.installed else Ran(127, "", "not found")

    def _find(self, words: list[str]) -> Ran:
        return Ran(0, "/var/lib/apt/lists/deb_Packages\n" if self.lists else "")

    def _apt_cache(self, words: list[str]) -> Ran:
        known = "1.0" if self.lists else "(none)"
        return Ran(0, "".join(f"{word}:\n  Installed: (none)\n  Candidate: {known}\n" for word in words[1:]))

    def _systemctl(self, words: list[str]) -> Ran:
        if words[0] == "enable":
            return self._start()
        if words[0] == "is-enabled":
            return Ran(1, "disabled\n" if "/usr/bin/dockerd" in self.installed else "")
        return Ran(3, "active\ninactive\n" if self.running else "inactive\ninactive\n")

    def _rc_service(self, words: list[str]) -> Ran:
        if words[1] == "start":
            return self._start()
        return Ran(0, f" * status: {'started' if self.running else 'stopped'}\n")

    # -- changing

    def _start(self) -> Ran:
        assert self.user == "root"
        assert "/usr/bin/dockerd" in self.installed
        self.running = True
        return Ran(0)

    def _rc_update(self, words: list[str]) -> Ran:
        return Ran(0)

    def _apt_get(self, words: list[str]) -> Ran:
        assert self.system in DEBIANS
        if words[0] == "update":
            self.lists = True
            return Ran(0)
        if self.interrupted:
            return Ran(100, "", "E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a'")
        return self._install(words[-1]) if self.lists else Ran(100, "", f"E: Unable to locate package {words[-1]}")

    def _dnf(self, words: list[str]) -> Ran:
        return self._install(words[-1])

    def _apk(self, words: list[str]) -> Ran:
        return self._install(words[-1])

    def _install(self, package: str) -> Ran:
        assert self.user == "root"
        if self.is_useless:
            return Ran(0)
        self.installed.add(BRINGS[package])
        if BRINGS[package].endswith("dockerd"):
            self.groups.setdefault("docker", set())
        return Ran(0)

    def _dpkg(self, words: list[str]) -> Ran:
        self.interrupted = False
        return Ran(0)

    def _usermod(self, words: list[str]) -> Ran:
        assert self.user == "root"
        if words[1] not in self.groups:
            return Ran(6, "", f"usermod: group '{words[1]}' does not exist")
        self.groups[words[1]].add(words[2])
        return Ran(0)

    def _groupadd(self, words: list[str]) -> Ran:
        self.groups[words[-1]] = set()
        return Ran(0)

    def _addgroup(self, words: list[str]) -> Ran:
        if words[0] == "-S":
            return self._groupadd(words)
        return self._usermod(["-aG", words[1], words[0]])

    def _sed(self, words: list[str]) -> Ran:
        match = re.fullmatch(r"1s/\[\[:space:\]\]\*\$/(.*)/", words[1])
        assert match, words
        first, _, rest = self.cmdline.partition("\n")
        self.cmdline = f"{first.rstrip()}{match[1]}\n{rest}"
        return Ran(0)
