"""The pure parts of the lab's aarch64 machine: what it may be, what QEMU and apt are told, what is in its image."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lab import image, machine, packages, shapes
from lab.machine import Machine
from lab.shapes import PI, Shape

MACHINE = Machine("pi-4", "/lab/pi-4", "/cache/kernel", cpus=2, memory_bytes=1 << 30, mac="02:c5:77:00:00:04")


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({"user": "pi"}, "it has no user"),
        ({"uptime_s": 5, "rc": "echo"}, "it has no uptime_s, rc"),
        ({"without": shapes.NO_PYTHON}, "it has no without"),
        ({"cpus": 0.5}, "whole processors, not 0.5"),
    ],
)
def test_what_a_machine_cannot_have_is_refused(what: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Shape("pi-4", machine="aarch64", **what)


def test_its_size() -> None:
    """That of a Pi, unless something else is said."""
    bigger = Shape("pi-5", machine="aarch64", cpus=4, memory_bytes=2 << 30)
    assert (PI.processors, PI.ram_bytes) == (2, 1 << 30)
    assert (bigger.processors, bigger.ram_bytes) == (4, 2 << 30)


def test_it_is_no_jump_host() -> None:
    shapes.check((Shape("gate"), Shape("pi-4", machine="aarch64", behind="gate")))
    with pytest.raises(ValueError, match="those are no jump hosts"):
        shapes.check((PI, Shape("inner", behind=PI.name)))


def test_the_command_line_of_qemu() -> None:
    """An emulated Pi 4, in the background, whose interface is the tap in its namespace; its files are its own."""
    argv = machine.argv(MACHINE)
    options = dict(pairwise(argv))
    assert argv[0] == "qemu-system-aarch64"
    assert (options["-machine"], options["-cpu"], options["-accel"]) == (
        "virt,virtualization=on",
        "cortex-a72",
        "tcg,thread=multi",
    )
    assert (options["-smp"], options["-m"], options["-serial"]) == ("2", "1024M", "file:/lab/pi-4/console")
    assert (options["-kernel"], options["-initrd"]) == ("/cache/kernel", "/lab/pi-4/initrd")
    assert "file=/lab/pi-4/disk.qcow2,format=qcow2," in options["-drive"]
    assert options["-netdev"] == "tap,id=net,ifname=guest,script=no,downscript=no"
    assert "virtio-net-device,netdev=net,mac=02:c5:77:00:00:04" in argv
    assert {"-daemonize", "-nodefaults", "-no-user-config"} <= set(argv)


def test_what_its_kernel_is_told() -> None:
    """Everything else is in a file that its first process reads."""
    words = machine.command_line().split()
    assert {"console=ttyAMA0", "random.trust_cpu=on"} <= set(words)
    assert machine.argv(MACHINE).count(machine.command_line()) == 1


URIS = """'http://deb/pool/openssh-server_9.2p1-2_arm64.deb' openssh-server_1%3a9.2p1-2_arm64.deb 412488 MD5Sum:1
'http://deb/pool/p/perl/perl-base_5.36_arm64.deb' perl-base_5.36_arm64.deb 1477684 MD5Sum:2
'http://security/pool/p/pcre2/libpcre2-8-0_10.42_arm64.deb' libpcre2-8-0_10.42_arm64.deb 230704
'http://deb/pool/d/dpkg/dpkg_1.21_arm64.deb' dpkg_1.21_arm64.deb 1550216 MD5Sum:3
W: something that apt had to say
"""


def test_the_packages_of_an_image() -> None:
    """By what apt would download, with or without a checksum."""
    assert packages.files(URIS) == [
        "dpkg_1.21_arm64.deb",
        "libpcre2-8-0_10.42_arm64.deb",
        "openssh-server_1%3a9.2p1-2_arm64.deb",
        "perl-base_5.36_arm64.deb",
    ]


def test_the_systems_apt_is_left_alone() -> None:
    """Another architecture, with a state and a cache of our own; no setting is written anywhere."""
    options = packages.options(Path("/cache"), "arm64")
    assert options[::2] == ["-o"] * (len(options) // 2)
    settings = dict(word.split("=") for word in options[1::2])
    assert settings["APT::Architectures"] == "arm64"
    assert {settings[f"Dir::{name}"] for name in ("State", "State::status", "Cache")} == {"/cache", "/cache/status"}


def test_an_image_is_known_by_what_it_is_made_from() -> None:
    """Another version of a package is another image; the same ones are the same, wherever."""
    assert image.key(["a_1_arm64.deb"]) == image.key(["a_1_arm64.deb"])
    assert image.key(["a_1_arm64.deb"]) != image.key(["a_2_arm64.deb"])


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert image.cache() == Path("/somewhere/coldstart-lab")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert image.cache() == Path.home() / ".cache/coldstart-lab"


def test_accounts(tmp_path: Path) -> None:
    """Those of every Debian, apt's and sshd's; no password lets anybody in."""
    (tmp_path / "passwd.master").write_text("root:*:0:0:root:/root:/bin/sh\ndaemon:*:1:1::/:/usr/sbin/nologin\n")
    (tmp_path / "group.master").write_text("root:*:0:\n")
    image.write_accounts(tmp_path, tmp_path)
    users = (tmp_path / "passwd").read_text().splitlines()
    assert users[0] == "root:x:0:0:root:/root:/bin/bash"
    assert [user.partition(":")[0] for user in users] == ["root", "daemon", "_apt", "sshd"]
    assert [line.split(":")[1] for line in (tmp_path / "shadow").read_text().splitlines()] == ["*"] * 4
    assert (tmp_path / "shadow").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "group").read_text().endswith(f"{image.GROUP}\n")


def test_the_first_files(tmp_path: Path) -> None:
    """One program, and a module after what it needs."""
    needs = {"virtio_mmio": "virtio", "virtio": "", "virtio_blk": "virtio", "virtio_net": "virtio,failover"}
    folder = tmp_path / "lib/modules/6.1/kernel"
    folder.mkdir(parents=True)
    for name, depends in {**needs, "failover": "", "ext3": ""}.items():
        (folder / f"{name}.ko").write_bytes(f"\0depends={depends}\0".encode())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").touch()
    paths = [file.path for file in image.first_files(tmp_path, "6.1")]
    assert paths[:2] == ["init", "bin/busybox"]
    modules = ["virtio", "virtio_mmio", "virtio_blk", "failover", "virtio_net"]
    assert paths[2:] == [f"modules/{number:02}-{name}" for number, name in enumerate(modules)]
