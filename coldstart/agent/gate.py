"""Is anybody there at all? A look at a bridge that costs less than a probe, and sends nothing.

The host's end of a pair of virtual interfaces is up (IFF_RUNNING) once the other end is, inside the instance: before
that nobody can answer. The engine plugs the pair in early and raises the far end late, shortly before the workload
runs. Asked by ioctl(2), not of /sys, which may show another network namespace; it takes no lock that the engine's own
work on interfaces would hold.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40


class Gate:
    """The ports of one bridge; ports: the folder that lists them."""

    def __init__(self, ports: str) -> None:
        self._folder = ports
        self._names: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def open(self) -> bool:
        """Whether any port's other end is up."""
        self._names = self._names or os.listdir(self._folder)
        return any(self._running(name) for name in self._names)

    def close(self) -> None:
        self._socket.close()

    def _running(self, name: str) -> bool:
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, struct.pack("40s", name.encode()))
        except OSError:  # unplugged since it was listed
            self._names = []
            return False
        return bool(struct.unpack_from("H", answer, 16)[0] & _IFF_RUNNING)
