"""A running QEMU, as the boot loop sees it: the leader of its own session, its console and its own words."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Sequence

from coldstart.agent import ports

KEPT_BYTES = 1 << 20
MESSAGE_CHARACTERS = 300
ADDRESS = "127.0.0.1"
_BLOCK = 1 << 16


class Console:
    """What a guest has written to its serial port, as far as it was read; QEMU's end is `write_end`.

    A pipe: it can be waited for. It holds KEPT_BYTES; a guest that writes more while nobody reads must wait.
    """

    def __init__(self, marker: str) -> None:
        self.fd, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.fcntl(self.write_end, fcntl.F_SETFL, 0)  # QEMU's end may wait, ours may not
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.fd, _F_SETPIPE_SZ, KEPT_BYTES)
        self._marker = marker.encode()
        self._text = b""
        self.ended = False

    def read(self) -> bool:
        """Take in what there is; whether the guest has shown itself by now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, _BLOCK):
                self._text = (self._text + data)[-KEPT_BYTES:]
            self.ended = True
        return bool(self._marker) and self._marker in self._text

    def text(self) -> str:
        """Lines as everybody else ends them: a terminal's, which a serial port is to Linux, end in \\r\\n."""
        self.read()
        return self._text.decode("utf-8", "replace").replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self.fd)


_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ since Python 3.10


class Qemu:
    """A started QEMU. said: the file of its own messages; tap: its interface, or ''; port: forwarded to it, or 0;
    in_order: exit codes of a guest that ended as it should."""

    def __init__(self, pid: int, said: int, console: Console, *, tap: str, port: int, in_order: Sequence[int]) -> None:
        self._pid = pid
        self._said = said
        self._console = console
        self._tap = tap
        self._port = port
        self._in_order = in_order
        self._code: int | None = None
        self.exited = os.pidfd_open(pid)
        self.console = console.fd

    def hear(self) -> bool:
        """Take in what the console has; whether the guest itself was heard by now."""
        heard = self._console.read()
        if self._console.ended:
            self.console = -1  # for ever readable now
        return heard

    def processes(self) -> Sequence[int]:
        return [self._pid]

    def interfaces(self) -> Sequence[str]:
        return [self._tap] if self._tap else []

    def exit_code(self) -> int | None:
        """As shells count: 128 + n for signal n."""
        if self._code is None:
            seen = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None:
                return None
            self._code = seen.si_status if seen.si_code == os.CLD_EXITED else 128 + seen.si_status
        return self._code

    def output(self) -> str:
        """The guest's console; what QEMU itself has to say is in `epitaph`."""
        return self._console.text()

    def epitaph(self) -> str:
        """What its exit code means, in words: QEMU's own, if it had something to say."""
        if self.exit_code() in self._in_order:
            return "as this image does when it ends in order"
        if self.exit_code() == 0:
            return "the guest switched off or was reset"
        said = os.pread(self._said, KEPT_BYTES, 0).decode("utf-8", "replace").strip()
        return said.partition("\n")[0][:MESSAGE_CHARACTERS]

    def remains(self) -> list[str]:
        return [] if not self._port or ports.usable(ADDRESS, self._port) else [f"port {self._port}"]

    def end(self) -> None:
        """Pull the plug: kill the group, reap the leader."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # `clean` was faster
            os.waitpid(self._pid, 0)
        os.close(self.exited)
        os.close(self._said)
        self._console.close()
