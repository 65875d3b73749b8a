"""Processes of ours: starting them, marking them, finding and ending them.

posix_spawn(3), which shares memory with the child until it execs: fork() would have the stopwatch's own process pay
3 ms of page faults for every boot. The price is that nothing can be done between the two, such as asking for a death
signal: a machine's process gets one by way of `launcher.py`. And the environment variable MARK=<run> marks a process
and everything it starts: whoever cleans up finds it, even after both of our own processes were killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from collections.abc import Mapping

MARK = "COLDSTART_RUN"
CANNOT_WATCH = ("this Python cannot watch processes", "Python 3.9 on Linux 5.3 or later can")
_PR_SET_PDEATHSIG = 1
# To be set to their defaults: Python ignores SIGPIPE, and what is ignored stays so across exec. Listed once, because
# listing them takes 0.1 ms.
_SIGNALS = tuple(signal.valid_signals())
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(argv: list[str], env: dict[str, str], output: int) -> int:
    """A child that runs argv in a session of its own, its output in `output`; OSError says why it does not."""
    return spawn_with(argv, env, {1: output, 2: output})


def spawn_with(argv: list[str], env: dict[str, str], streams: Mapping[int, int]) -> int:
    """As above; streams: our descriptor for each of the child's, in ascending order."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in streams.items()]
    return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_SIGNALS)


def can_watch() -> bool:
    """Whether the end of a process can be waited for beside other things: by trying."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def seal() -> None:
    """Let no descriptor of this process cross an exec, not even those it inherited itself (0, 1 and 2 apart)."""
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd > 2:
            with contextlib.suppress(OSError):  # the one that listed them
                os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keyword


def marked(name: str, run: str, *, but: str) -> list[int]:
    """Processes that bear `run` as the mark `name`; if `run` is empty, those of any run but `but`. Only of this PID
    namespace: those of another are another node's, which has a lock of its own."""
    found = []
    for entry in os.listdir("/proc"):
        mark = mark_of(entry, name) if entry.isdigit() else ""
        if mark and (mark == run if run else mark != but) and _namespace(entry) == _namespace("self"):
            found.append(int(entry))
    return found


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def mark_of(pid: str, name: str) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:  # another user's, or gone
        return ""
    marks = [entry.partition(b"=")[2] for entry in entries if entry.startswith(name.encode() + b"=")]
    return marks[0].decode("utf-8", "replace") if marks else ""


def kill(pid: int, number: int, *, limit_s: float = 5.0) -> None:
    """Send a signal and see the process gone; SIGKILL after limit_s. Reap it if it is ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, number)  # type: ignore[attr-defined,unused-ignore]
        if not select.select([fd], [], [], limit_s)[0]:
            signal.pidfd_send_signal(fd, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
            select.select([fd], [], [], limit_s)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass
    finally:
        os.close(fd)


def die_with_parent(number: int) -> None:
    """Have the kernel send `number` to this process when the thread that forked it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
