"""The files that make a node somebody: who it is, who may come in. Texts only, but for `write_disk`."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from lab.network import call
from lab.rootfs import DISK, USER_ID
from lab.shapes import Shape

# crypt(3) of shapes.PASSWORD: a sum that is known to all need not be made anew, and Python's own crypt is going away.
PASSWORD_HASH = "$6$coldstart$b1Q9kKh2MiBdRS6G95drYE/WMw2KvF5mmvpiKKWQs.oYgKja04XoWXqZBJ7a64MQ/hDUu90ki.SCaUnc4BkgQ0"
RC_FILES = (".bashrc", ".profile", ".cshrc", ".zshenv", ".config/fish/config.fish")
Entry = tuple[str, int, str]  # path, mode, text

SSHD = """
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 200
PrintMotd no
Subsystem sftp internal-sftp
"""


def entries(shape: Shape, *, host_key: str, hosts: str) -> list[Entry]:
    """Written at every start, into the layer that does not outlive it."""
    found = [
        ("/etc/hostname", 0o644, f"{shape.name}\n"),
        ("/etc/hosts", 0o644, f"127.0.0.1 localhost\n{hosts}"),
        ("/etc/machine-id", 0o444, uuid.uuid5(uuid.NAMESPACE_DNS, shape.name).hex + "\n"),
        ("/etc/ssh/ssh_host_ed25519_key", 0o600, host_key),
        # The first line that names an option counts.
        ("/etc/ssh/sshd_config", 0o644, "\n".join(shape.sshd) + SSHD),
    ]
    if shape.sudo != "none":
        tag = "NOPASSWD: " if shape.sudo == "free" else ""
        found.append(("/etc/sudoers.d/lab", 0o440, f"{shape.user} ALL=(ALL:ALL) {tag}ALL\n"))
    return found


def write_disk(disk: Path, shape: Shape, public_key: str) -> None:
    """What a node keeps, at its first start."""
    for name in DISK.values():
        (disk / name).mkdir(parents=True)
    (disk / "tmp").chmod(0o1777)
    (disk / "root").chmod(0o700)
    home = disk / "root" if shape.user == "root" else disk / "home" / shape.user
    home.mkdir(exist_ok=True)
    write_home(home, shape, "".join(f"{key}\n" for key in (public_key, *shape.authorized)))
    if shape.user != "root":
        for path in (home, *home.rglob("*")):
            shutil.chown(path, USER_ID, USER_ID)


def write_home(home: Path, shape: Shape, authorized: str) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh/authorized_keys").write_text(authorized)
    os.chmod(home / ".ssh/authorized_keys", 0o600)
    for name in RC_FILES if shape.rc else ():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{shape.rc}\n")


def make_key(path: Path, comment: str) -> None:
    """A new pair: `path` and `path.pub`."""
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
