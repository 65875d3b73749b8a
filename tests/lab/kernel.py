"""System calls that Python 3.11 has no function for, and sockets in another network namespace."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

NEWTIME, NEWNS, NEWCGROUP, NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
NEWIPC, NEWPID, NEWNET = 0x8000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
_MS_REMOUNT, _MS_RDONLY = 32, 1
_MNT_DETACH = 2
_NETNS = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def enter_net(name: str) -> None:
    """The calling thread, into a named network namespace."""
    fd = os.open(_NETNS / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, NEWNET), f"setns {name}")
    finally:
        os.close(fd)


def mount(kind: str, source: str | Path, at: Path, *, flags: int = 0, options: str = "") -> None:
    """Make `at` if it is not there, and mount on it."""
    at.mkdir(parents=True, exist_ok=True)
    _mount(kind, source, at, flags, options)


def bind(source: str | Path, at: Path, *, writable: bool = True) -> None:
    """A directory or file once more, at a place of the same kind."""
    if not Path(source).is_dir():
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()
    else:
        at.mkdir(parents=True, exist_ok=True)
    _mount("", source, at, MS_BIND, "")
    if not writable:
        _mount("", "", at, MS_BIND | _MS_REMOUNT | _MS_RDONLY, "")


def pivot_root(new: Path) -> None:
    """`new` becomes /, and the old root is out of reach."""
    os.chdir(new)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount the old root")
    os.chdir("/")


def socket_in(name: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket of a named network namespace. A thread of its own enters it, so that its caller stays where it is."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            enter_net(name)
            made.append(socket.socket(family, kind, protocol))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _mount(kind: str, source: str | Path, at: Path, flags: int, options: str) -> None:
    arguments = (str(source).encode(), str(at).encode(), kind.encode(), flags, options.encode() or None)
    _check(_libc.mount(*arguments), f"mount {kind or 'bind'} {source} on {at}")


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
