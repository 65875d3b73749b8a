"""Machines of users' own: a guest of each kind, made here, and booted by the very example in docs/runtimes.md."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Coldstart
from examples import examples

from coldstart.archive import File
from coldstart.workloads import initramfs, kernels

pytestmark = pytest.mark.live

GUESTS = Path(__file__).parents[1] / "guests"
BUSYBOX = Path("/bin/busybox")  # of Debian's busybox-static
ASSEMBLE = ("cc", "-target", "x86-freestanding-none")
LINK = ("-nostdlib", "-static", "-s", "-Wl,--image-base=0x100000")  # multiboot: not below 1 MiB
SECTOR_BYTES, DISK_BYTES = 512, 1 << 20


def sweep(
    coldstart: Coldstart, name: str, *, boots: int = 1, code: int = 0, but: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """The boots of an example as the page has it, `but` for some words."""
    text = examples()[name]
    for old, new in but:
        assert old in text
        text = text.replace(old, new)
    done = coldstart.sweep("--playbook", coldstart.write(f"{name}.yaml", text), "--boots", str(boots))
    assert done.returncode == code, done.stderr
    return coldstart.records()


def zig(*argv: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", *argv], check=True, timeout=60)


@pytest.fixture(scope="session")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `vmlinuz`, the distribution's, and `initrd.img`, of busybox and a few scripts."""
    folder = tmp_path_factory.mktemp("linux")
    busybox = BUSYBOX.read_bytes()
    assert b"/ld-linux" not in busybox, "a busybox that needs a libc; next: apt-get install busybox-static"
    kernel = kernels.load(kernels.find(platform.machine()))
    scripts = [path for path in (GUESTS / "linux").rglob("*") if path.is_file()]
    files = [File(str(path.relative_to(GUESTS / "linux")), path.read_bytes(), 0o755) for path in scripts]
    files += [File("bin/busybox", busybox, 0o755)]
    files += [File(f"modules/{number}-{module.path}", module.data) for number, module in enumerate(kernel.modules)]
    (folder / "vmlinuz").write_bytes(kernel.image)
    (folder / "initrd.img").write_bytes(initramfs.pack(files))
    return folder


@pytest.fixture
def beside(coldstart: Coldstart, linux: Path) -> None:
    """The kernel and the initramfs where the playbook will be."""
    for path in linux.iterdir():
        (coldstart.folder / path.name).symlink_to(path)


def write_disk(folder: Path, second_sector: bytes = b"") -> None:
    """`disk.img`, and the same as `disk.qcow2`."""
    raw = folder / "disk.img"
    zig(*ASSEMBLE, "-c", "-o", folder / "disk.o", GUESTS / "disk.S")
    zig("objcopy", "-O", "binary", folder / "disk.o", raw)
    assert raw.stat().st_size == SECTOR_BYTES
    raw.write_bytes((raw.read_bytes() + second_sector).ljust(DISK_BYTES, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"], check=True, timeout=30)


# --- Linux ---


def test_a_kernel_with_an_initramfs(coldstart: Coldstart, beside: None) -> None:
    """Its address and nonce from the command line, its first words on the console."""
    (boot,) = sweep(coldstart, "linux")
    assert boot["outcome"] == "ok", boot["detail"]
    marks = boot["marks_ns"]
    assert marks["created"] < marks["guest"] < marks["tcp"] < marks["ready"]
    assert (boot["labels"]["net"], boot["labels"]["console"]) == ("tap", "on")


def test_a_guest_that_says_nothing(coldstart: Coldstart, beside: None) -> None:
    (boot,) = sweep(coldstart, "silent")
    assert boot["outcome"] == "ok", boot["detail"]
    assert "guest" not in boot["marks_ns"]
    assert boot["labels"]["console"] == "off"


def test_a_guest_that_asks_by_dhcp(coldstart: Coldstart, beside: None) -> None:
    """User networking answers, though the guest has no way out."""
    (boot,) = sweep(coldstart, "dhcp")
    assert (boot["outcome"], boot["labels"]["net"]) == ("ok", "user"), boot["detail"]


# --- disks ---


def test_every_boot_finds_the_disk_as_it_came(coldstart: Coldstart) -> None:
    """Whatever the boot before has written to it, which it has read back."""
    write_disk(coldstart.folder)
    boots = sweep(coldstart, "disk", boots=2)
    assert [boot["outcome"] for boot in boots] == ["ok"] * 4
    assert sorted(boot["target"] for boot in boots) == ["qcow2", "qcow2", "raw", "raw"]
    assert {boot["labels"]["net"] for boot in boots} == {"user"}  # nobody tells a disk the address of a tap device


def test_the_boot_sector_can_tell_a_written_disk(coldstart: Coldstart) -> None:
    """Without this, the test above would prove nothing."""
    write_disk(coldstart.folder, b"mark")
    boots = sweep(coldstart, "disk", but=[("the disk is as it came", "the disk was written before")])
    assert [boot["outcome"] for boot in boots] == ["ok", "ok"]


# --- multiboot ---


def test_a_multiboot_kernel(coldstart: Coldstart) -> None:
    """Ready by a line; as a job, by its code, which comes after the line: nothing is lost of what a guest said last."""
    zig(*ASSEMBLE, *LINK, "-o", coldstart.folder / "app.elf", GUESTS / "multiboot.S")
    boots = {boot["target"]: boot for boot in sweep(coldstart, "multiboot")}
    assert {name: boot["outcome"] for name, boot in boots.items()} == {"line": "ok", "job": "ok"}
    boots = {b["target"]: b for b in sweep(coldstart, "multiboot", code=3, but=[("exit: 85", "exit: 0")])}
    job = boots["job"]
    assert job["outcome"] == "error:exited"
    assert job["detail"] == "ended with code 85 (as this image does when it ends in order)"
