"""One run at a time per node. The lock is a flock(2) on a file that says whose it is.

Watchdog and measurer share the open file: the lock is free only when both are gone, so a run that is still being
cleaned up cannot be disturbed by the next.
"""

from __future__ import annotations

import fcntl
import os


class Busy(Exception):
    """Another run holds the node. run: which."""

    def __init__(self, run: str) -> None:
        super().__init__(f"node busy: run {run}")
        self.run = run


def is_the_nodes() -> bool:
    """Whether the lock is the one for the whole node: only then is every run but its holder's known to be dead."""
    return not os.environ.get("COLDSTART_LOCK")


def path() -> str:
    """The same for every user of the node: in /run/lock where all may write there (Debian and its kin), else in /tmp.
    COLDSTART_LOCK names another, for who runs several fake nodes on one machine."""
    told = os.environ.get("COLDSTART_LOCK")
    if told:
        return told
    return os.path.join("/run/lock" if _for_everybody("/run/lock") else "/tmp", "coldstart.lock")


def _for_everybody(folder: str) -> bool:
    try:
        return os.stat(folder).st_mode & 0o1002 == 0o1002
    except OSError:
        return False


def take(run: str) -> int:
    """The descriptor that holds the lock from now on, or Busy."""
    fd = _open(path())
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
        os.close(fd)
        raise Busy(holder or "unknown") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, run.encode(), 0)
    return fd


def _open(where: str) -> int:
    try:
        # Without O_CREAT first: in a sticky folder the kernel refuses it for another user's file.
        return os.open(where, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        fd = os.open(where, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        os.fchmod(fd, 0o666)  # whatever the umask: other users must be able to wait for us
        return fd
