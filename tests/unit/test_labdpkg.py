"""What the lab's aarch64 machine is told of its packages: dpkg's record of them, written as dpkg would have."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lab import dpkgrecord, image
from lab.dpkgrecord import Entry

LIBC = Entry(
    "Package: libc6\nVersion: 2.36\nArchitecture: arm64\nMulti-Arch: same\nDescription: libraries\n that many need\n",
    ("/.", "/lib", "/lib/libc.so.6"),
    {"triggers": b"activate-noawait ldconfig\n", "md5sums": b"0  lib/libc.so.6\n"},
)
BIN = Entry(
    "Package: libc-bin\nVersion: 2.36\nArchitecture: arm64\nMulti-Arch: foreign\nDescription: binaries\n",
    ("/.", "/etc", "/etc/ld.so.conf"),
    {
        "conffiles": b"/etc/ld.so.conf\nremove-on-upgrade /etc/old\n",
        "postinst": b"#!/bin/sh\nldconfig\n",
        "triggers": b"# by hand\ninterest-noawait ldconfig\ninterest /usr/lib/gconv\n",
    },
)


def test_names() -> None:
    """With the architecture where a package may be there for several."""
    assert (LIBC.info, BIN.info) == ("libc6:arm64", "libc-bin")


def test_a_package_is_installed_with_its_configuration_as_it_came(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.conf").write_text("include\n")
    digest = hashlib.md5(b"include\n", usedforsecurity=False).hexdigest()
    assert dpkgrecord.paragraph(BIN, tmp_path).splitlines() == [
        "Package: libc-bin",
        "Status: install ok installed",
        *BIN.control.splitlines()[1:],
        "Conffiles:",
        f" /etc/ld.so.conf {digest}",
    ]
    assert dpkgrecord.paragraph(LIBC, tmp_path).endswith("Description: libraries\n that many need\n")


def test_who_is_told_of_what() -> None:
    """Those who want to be; not those who tell."""
    assert dpkgrecord.triggers([LIBC, BIN]) == {"ldconfig": ["libc-bin/noawait"], "File": ["/usr/lib/gconv libc-bin"]}


def test_the_record(tmp_path: Path) -> None:
    """Every file that dpkg looks for; scripts can be run."""
    dpkgrecord.write([LIBC, BIN], tmp_path)
    place = tmp_path / "var/lib/dpkg"
    assert {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} == {
        *("status", "available", "diversions", "statoverride"),
        *("triggers/File", "triggers/ldconfig", "triggers/Unincorp"),
        *("info/format", "info/libc6:arm64.list", "info/libc6:arm64.md5sums", "info/libc6:arm64.triggers"),
        *("info/libc-bin.list", "info/libc-bin.conffiles", "info/libc-bin.postinst", "info/libc-bin.triggers"),
    }
    assert (place / "info/libc6:arm64.list").read_text() == "/.\n/lib\n/lib/libc.so.6\n"
    modes = [(place / f"info/libc-bin.{name}").stat().st_mode & 0o777 for name in ("postinst", "conffiles")]
    assert modes == [0o755, 0o644]
    names = [line for line in (place / "status").read_text().splitlines() if line.startswith("Package: ") or not line]
    assert names == ["Package: libc-bin", "", "Package: libc6"]


def test_folders_are_merged_into_usr(tmp_path: Path) -> None:
    """With what is there: files among files, links as they are."""
    for name in ("bin/sh", "lib/arm/libc", "usr/lib/arm/libm", "usr/bin/env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "lib/arm/libc.so").symlink_to("libc")
    for name in ("bin", "lib"):
        image.merge(tmp_path, name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "usr/bin/sh").read_text() == (tmp_path / "bin/sh").read_text() == "bin/sh"
    assert sorted(path.name for path in (tmp_path / "lib/arm").iterdir()) == ["libc", "libc.so", "libm"]
    assert (tmp_path / "lib/arm/libc.so").read_text() == "lib/arm/libc"
