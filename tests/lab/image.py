"""What a guest starts from: a kernel, an initramfs and a disk, made of Debian's packages for arm64.

Nothing that is not of this machine's own architecture is run for it: apt downloads, dpkg-deb unpacks, what dpkg would
have remembered is written, and what maintainers' scripts would have done is done here, as far as a node needs it.

All is kept in $XDG_CACHE_HOME/coldstart-lab (~/.cache): packages, and images by the hash of what they are made from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coldstart.archive import File
from coldstart.workloads import initramfs, modules
from lab import dpkgrecord, names
from lab.network import call
from lab.packages import Apt

COMMANDS = ("apt-get", "dpkg-deb", "depmod", "mke2fs")
WANTED = (
    *("?essential", "apt", "usr-is-merged", "busybox-static", "mount", "procps", "iproute2", "iptables", "kmod"),
    *("openssh-server", "python3", "docker.io", "qemu-system-arm", "linux-image-cloud-arm64"),
)
MERGED = ("bin", "lib", "sbin")  # links into usr, as on every Debian
PRUNED = ("boot", "usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man")
FOLDERS = ("dev", "proc", "sys", "run", "tmp", "root/.ssh", "var/log", "var/tmp", "etc/ssh")
LINKS = {
    "bin/ping": "busybox",
    "bin/sh": "dash",
    "usr/bin/awk": "mawk",
    "usr/bin/which": "/bin/busybox",
    "usr/sbin/ip6tables": "xtables-nft-multi",
    "usr/sbin/iptables": "xtables-nft-multi",
    "var/lock": "/run/lock",
    "var/run": "/run",
}
# Beside those of every Debian.
USERS = ("_apt:x:100:65534::/nonexistent:/usr/sbin/nologin", "sshd:x:105:65534::/run/sshd:/usr/sbin/nologin")
GROUP = "docker:x:106:"
FIRST_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net")  # before there is a disk to read others from
LINK = "image"  # in a guest's folder: to the one it was started from
DISK_BYTES = 4 << 30  # its file takes what is used
_KEPT_S = 24 * 3600  # an image that nobody has asked for so long goes
_SCRIPTS = Path(__file__).parent / "guestfiles"


@dataclass(frozen=True)
class Image:
    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """Raw, and never written to: a guest writes to a layer of its own above."""
        return self.folder / "disk"


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "coldstart-lab"


def get() -> Image:
    """The image of today's packages; made if it is not there. One process at a time. PackagesError, CommandFailed."""
    folder = cache()
    apt = Apt(folder, "arm64", WANTED)
    with _alone(folder):
        apt.refresh()
        packages = apt.resolve()
        image = Image(folder / f"image-{key(packages)}")
        if not image.folder.exists():
            downloaded = apt.download()
            build([downloaded / package for package in packages], image)
        os.utime(image.folder)
        _forget_others(folder)
    return image


def archives(*names: str) -> list[Path]:
    """The packages of these names that images are made from; once there is one, they are here."""
    return [path for name in names for path in sorted((cache() / "archives").glob(f"{name}_*.deb"))]


def key(packages: Sequence[str]) -> str:
    """Of everything that an image is made from: the packages with their versions, and the code that makes it."""
    digest = hashlib.sha256("\n".join(packages).encode())
    for module in (dpkgrecord, initramfs, modules):
        digest.update(Path(module.__file__).read_bytes())
    for path in (Path(__file__), *sorted(_SCRIPTS.iterdir())):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build(packages: Iterable[Path], image: Image) -> None:
    """All or nothing."""
    making = Image(image.folder.with_name(f".new-{image.folder.name}"))
    root = making.folder / "root"
    root.mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = list(pool.map(lambda package: dpkgrecord.unpack(package, root), packages))
    dpkgrecord.write(entries, root)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    release = kernel.name.partition("-")[2]
    kernel.rename(making.kernel)
    configure(root)
    call("depmod", "--basedir", str(root), release)
    making.initrd.write_bytes(initramfs.pack(first_files(root, release)))
    with making.disk.open("wb") as disk:
        disk.truncate(DISK_BYTES)
    call("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(making.disk))
    shutil.rmtree(root)
    making.folder.rename(image.folder)


def configure(root: Path) -> None:
    """What maintainers' scripts would have done."""
    for name in MERGED:
        merge(root, name)
    for name in PRUNED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name, to in LINKS.items():
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(to)
    write_accounts(root / "usr/share/base-passwd", root / "etc")
    shutil.copy(_SCRIPTS / "init.sh", root / "sbin/init")
    (root / "sbin/init").chmod(0o755)


def merge(root: Path, name: str) -> None:
    """dpkg-deb, unlike dpkg, would have made a folder of a link."""
    _move(root / name, root / "usr" / name)
    (root / name).symlink_to(f"usr/{name}")


def _move(folder: Path, to: Path) -> None:
    """All that is in it, among what is there."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and (to / path.name).is_dir():
            _move(path, to / path.name)
        else:
            path.rename(to / path.name)
    folder.rmdir()


def write_accounts(masters: Path, etc: Path) -> None:
    """Nobody has a password."""
    users = [*(masters / "passwd.master").read_text().splitlines(), *USERS]
    users = ["root:x:0:0:root:/root:/bin/bash" if user.startswith("root:") else user for user in users]
    shadows = [f"{user.partition(':')[0]}:*:20000:0:99999:7:::" for user in users]
    groups = [*(masters / "group.master").read_text().splitlines(), GROUP]
    for name, lines in {"passwd": users, "shadow": shadows, "group": groups}.items():
        (etc / name).write_text("\n".join([*lines, ""]))
    (etc / "shadow").chmod(0o600)


def first_files(root: Path, release: str) -> list[File]:
    """The initramfs: its one program, and the modules without which there is no disk, in the order of loading."""
    folder = root / "lib/modules" / release
    found = modules.index([str(path.relative_to(root)) for path in folder.rglob("*.ko")], release)

    def needs(name: str) -> list[str]:
        return modules.depends((root / found[name]).read_bytes())

    loaded = modules.order(FIRST_MODULES, needs)
    return [
        File("init", (_SCRIPTS / "initramfs.sh").read_bytes(), 0o755),
        File("bin/busybox", (root / "bin/busybox").read_bytes(), 0o755),
        *(File(f"modules/{n:02}-{name}", (root / found[name]).read_bytes()) for n, name in enumerate(loaded)),
    ]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_others(folder: Path) -> None:
    """Images of before that no lab uses, and what a build that failed has left."""
    used = {path.resolve() for state in names.states() for path in state.folder.glob(f"*/{LINK}")}
    for path in folder.glob("image-*"):
        if path not in used and time.time() - path.stat().st_mtime > _KEPT_S:
            shutil.rmtree(path)
    for path in folder.glob(".new-*"):
        shutil.rmtree(path)
