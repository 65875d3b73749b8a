"""What a node sees of this machine: its programs, and nothing of its state.

An overlay of / with its upper layer in memory (a layer may not lie below what it covers; /var/lib/docker is a real
directory, because an engine's overlay cannot lie on another). Everything that belongs to this machine alone is covered:
home folders, what runs, what was logged, keys, engines. The folders of `disk/` outlive a reboot; the rest does not.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import stat
import uuid
from pathlib import Path
from typing import Any

from lab import cgroups, kernel

DISK = {  # on the node: in its folder
    "/root": "root",
    "/home": "home",
    "/var/lib/docker": "docker",
    "/var/lib/containerd": "containerd",
    "/var/log": "log",
    "/var/tmp": "tmp",
}
HIDDEN = ("/etc/docker", "/etc/containerd", "/etc/ssh", "/etc/sudoers.d", "/etc/cron.d")
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
UPPER_SIZE = "512m"
USER_ID = 40_000  # of the user that is not root; this machine's own have lower ones


def build(spec: dict[str, Any]) -> None:
    """The root of the calling process, which has namespaces of its own."""
    base = Path(spec["folder"]) / "mnt"
    socket.sethostname(spec["shape"]["name"])
    kernel.mount("", "none", Path("/"), flags=kernel.MS_REC | kernel.MS_PRIVATE)
    root = overlay(base)
    shown = [(folder, base / "shown" / str(index)) for index, folder in enumerate(spec["shape"]["shows"])]
    for source, kept in shown:
        kernel.bind(source, kept, writable=False)
    mount_disk(Path(spec["folder"]) / "disk", root)
    mount_kernel(root)
    mount_devices(root / "dev")
    for source, kept in shown:
        kernel.bind(kept, root / source.lstrip("/"), writable=False)
    write_files(spec, root)
    kernel.pivot_root(root)
    kernel.bind("/run/boot_id", Path("/proc/sys/kernel/random/boot_id"), writable=False)


def overlay(base: Path) -> Path:
    kernel.mount("tmpfs", "cslab", base, options=f"mode=755,size={UPPER_SIZE}")
    upper, work, root = base / "upper", base / "work", base / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    kernel.mount("overlay", "cslab", root, options=f"lowerdir=/,upperdir={upper},workdir={work}")
    return root


def mount_disk(disk: Path, root: Path) -> None:
    for place, name in DISK.items():
        kernel.bind(disk / name, root / place.lstrip("/"))
    for place in HIDDEN:
        shutil.rmtree(root / place.lstrip("/"), ignore_errors=True)
        (root / place.lstrip("/")).mkdir(parents=True)


def mount_kernel(root: Path) -> None:
    """Views of the kernel that belong to the namespaces it is in now."""
    kernel.mount("proc", "proc", root / "proc")
    kernel.mount("sysfs", "sysfs", root / "sys")
    mount_cgroups(root / "sys/fs/cgroup")
    kernel.mount("tmpfs", "run", root / "run", options="mode=755")
    kernel.mount("tmpfs", "tmp", root / "tmp", options="mode=1777")
    (root / "run/sshd").mkdir(mode=0o755)
    (root / "run/lock").mkdir()
    (root / "run/lock").chmod(0o1777)


def mount_cgroups(at: Path) -> None:
    if cgroups.is_v2():
        kernel.mount("cgroup2", "cgroup", at)
        return
    kernel.mount("tmpfs", "cgroup", at, options="mode=755")
    for name in cgroups.hierarchies():
        kernel.mount("cgroup", "cgroup", at / name, options=name)


def mount_devices(dev: Path) -> None:
    kernel.mount("tmpfs", "dev", dev, options="mode=755")
    for name, major, minor in DEVICES:
        make_device(dev / name, os.makedev(major, minor))
    (dev / "net").mkdir()
    for name in ("net/tun", "kvm", "fuse"):
        if Path("/dev", name).exists():
            make_device(dev / name, os.stat(f"/dev/{name}").st_rdev)
    kernel.mount("devpts", "devpts", dev / "pts", options="newinstance,mode=620,gid=5,ptmxmode=666")
    kernel.mount("tmpfs", "shm", dev / "shm", options="mode=1777")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def make_device(path: Path, device: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, device)
    path.chmod(0o666)


def write_files(spec: dict[str, Any], root: Path) -> None:
    shape, etc = spec["shape"], root / "etc"
    (root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
    for name, mode, text in spec["files"]:
        path = root / name.lstrip("/")
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
    add_user(shape, etc, spec["password_hash"])
    for pattern in shape["without"]:
        for path in glob.glob(str(root / pattern.lstrip("/"))):
            os.unlink(path)


def add_user(shape: dict[str, Any], etc: Path, password_hash: str) -> None:
    """Or change root's shell."""
    name, shell = shape["user"], shape["login_shell"]
    lines = (etc / "passwd").read_text().splitlines()
    if name == "root":
        lines = [line.rpartition(":")[0] + f":{shell}" if line.startswith("root:") else line for line in lines]
    else:
        lines.append(f"{name}:x:{USER_ID}:{USER_ID}::/home/{name}:{shell}")
        append(etc / "shadow", f"{name}:{password_hash}:20000:0:99999:7:::")
        groups = [join_group(line, name, shape["groups"]) for line in (etc / "group").read_text().splitlines()]
        (etc / "group").write_text("\n".join([*groups, f"{name}:x:{USER_ID}:", ""]))
    (etc / "passwd").write_text("\n".join([*lines, ""]))


def join_group(line: str, user: str, groups: list[str]) -> str:
    group, members = line.partition(":")[0], line.rpartition(":")[2]
    return line + ("," if members else "") + user if group in groups else line


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
