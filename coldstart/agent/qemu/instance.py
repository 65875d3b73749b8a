"""A running QEMU, as the boot loop sees it: its process, its console and its own words."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence

from coldstart.agent import launcher, ports
from coldstart.agent.leader import Leader

KEPT_BYTES = 1 << 20
MESSAGE_CHARACTERS = 300
ADDRESS = "127.0.0.1"
REFUSED = 1  # QEMU's own code when it cannot do as it is told
_BLOCK = 1 << 16
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ since Python 3.10


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
        self._kept = bytearray()
        self.heard = False
        self.ended = False

    def read(self) -> None:
        """Take in what there is."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, _BLOCK):
                self._take(data)
            self.ended = True

    def text(self) -> str:
        """What was taken in, its lines ending as Python's do: a terminal wants \\r\\n, which `$` would not match."""
        return self._kept.decode("utf-8", "replace").replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self.fd)

    def _take(self, data: bytes) -> None:
        searched = max(0, len(self._kept) - len(self._marker))  # it may have been cut
        self._kept += data
        if self._marker and not self.heard:
            self.heard = self._kept.find(self._marker, searched) >= 0
        if len(self._kept) > 2 * KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]


class Qemu:
    """A started QEMU. said: the file of its own messages; tap: its interface, or ''; port: forwarded to it, or 0;
    in_order: exit codes of a guest that ended as it should."""

    def __init__(
        self, leader: Leader, said: int, console: Console, *, tap: str, port: int, in_order: Sequence[int]
    ) -> None:
        self._leader = leader
        self._said = said
        self._console = console
        self._tap = tap
        self._port = port
        self._in_order = in_order
        self.exited = leader.exited
        self.console = console.fd

    def hear(self) -> bool:
        """Take in what the console has; whether the guest itself was heard by now."""
        self._console.read()
        if self._console.ended:
            self.console = -1  # for ever readable now
        return self._console.heard

    def processes(self) -> Sequence[int]:
        return [self._leader.pid]

    def interfaces(self) -> Sequence[str]:
        return [self._tap] if self._tap else []

    def exit_code(self) -> int | None:
        return self._leader.exit_code()

    def output(self) -> str:
        """What was heard on the guest's console; what QEMU itself has to say is in `epitaph`."""
        return self._console.text()

    def refused(self) -> bool:
        """Whether QEMU gave up by itself: then its exit code is not the guest's."""
        return self.exit_code() == REFUSED and bool(self._complaint())

    def epitaph(self) -> str:
        """What its exit code means, in words: QEMU's own, if it had something to say."""
        code = self.exit_code()
        if code == launcher.EXIT_NOT_STARTED:
            return "QEMU could not be executed"
        if self.refused():
            return self._complaint()
        if code in self._in_order:
            return "as this image does when it ends in order"
        return "the guest switched off or was reset" if code == 0 else self._complaint()

    def remains(self) -> list[str]:
        return [] if not self._port or ports.usable(ADDRESS, self._port) else [f"port {self._port}"]

    def end(self) -> None:
        """Pull the plug."""
        self._leader.end()
        os.close(self._said)
        self._console.close()

    def _complaint(self) -> str:
        """QEMU's first message that is no warning."""
        lines = os.pread(self._said, KEPT_BYTES, 0).decode("utf-8", "replace").splitlines()
        found = (line for line in lines if line.startswith("qemu-system-") and ": warning: " not in line)
        return next(found, "")[:MESSAGE_CHARACTERS]
