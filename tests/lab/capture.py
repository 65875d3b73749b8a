"""Packets as they pass an interface of the lab, with the kernel's time stamps.

At a node: what it sends and receives at its own eth0, before any delay line; so one sees when it sent. At the switch
(""): what comes in at any port, after the delay. All stamps are of one clock, this machine's CLOCK_REALTIME, whatever
the nodes' own clocks show.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from lab import kernel

_SO_TIMESTAMPNS = 35  # its messages bear the same number
_ETH_P_ALL, _IPV4 = 0x0003, 0x0800
_BUFFER_BYTES = 8 << 20
_SO_RCVBUFFORCE = 33
_FRAME_BYTES = 1 << 16
_WITH_PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


@dataclass(frozen=True)
class Packet:
    """One IPv4 packet. at: node, or "" for the switch; sent: by that node. Ports are 0 where there are none."""

    time_ns: int
    at: str
    sent: bool
    protocol: int
    source: tuple[str, int]
    to: tuple[str, int]
    payload: bytes

    @property
    def is_udp(self) -> bool:
        return self.protocol == socket.IPPROTO_UDP


def parse(frame: bytes, *, time_ns: int, at: str, sent: bool) -> Packet | None:
    """An Ethernet frame; None if it is not IPv4, or a later fragment of it."""
    if len(frame) < 34 or struct.unpack_from("!H", frame, 12)[0] != _IPV4:
        return None
    header_bytes, total = (frame[14] & 15) * 4, struct.unpack_from("!H", frame, 16)[0]
    if struct.unpack_from("!H", frame, 20)[0] & 0x1FFF:
        return None
    protocol, packet = frame[23], frame[14 : 14 + total]
    source, to = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    body = packet[header_bytes:]
    ports = struct.unpack_from("!HH", body) if protocol in _WITH_PORTS and len(body) >= 8 else (0, 0)
    return Packet(time_ns, at, sent, protocol, (source, ports[0]), (to, ports[1]), _payload(protocol, body))


def _payload(protocol: int, body: bytes) -> bytes:
    if protocol == socket.IPPROTO_UDP:
        return body[8:]
    if protocol == socket.IPPROTO_TCP and len(body) >= 20:
        return body[(body[12] >> 4) * 4 :]
    return body


class Capture:
    """places: at (see Packet) -> network namespace. It listens from the moment it is made until it is closed."""

    def __init__(self, places: dict[str, str]) -> None:
        self._sockets = {self._listen(at, netns): at for at, netns in places.items()}
        self.packets: list[Packet] = []

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = {}

    def read(self, wait_s: float = 0.0) -> list[Packet]:
        """All packets so far; waits until there is a new one, or so long."""
        readable, _, _ = select.select(list(self._sockets), [], [], wait_s)
        for sock in readable:
            self._drain(sock, self._sockets[sock])
        return self.packets

    def wait(self, match: Callable[[Packet], bool], count: int = 1, limit_s: float = 5.0) -> list[Packet]:
        """The matching packets, as soon as there are so many; TimeoutError."""
        deadline = time.monotonic() + limit_s
        while True:
            found = [packet for packet in self.read(max(0.0, min(0.2, deadline - time.monotonic()))) if match(packet)]
            if len(found) >= count:
                return sorted(found, key=lambda packet: packet.time_ns)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} packets within {limit_s:g} s")

    def _listen(self, at: str, netns: str) -> socket.socket:
        sock = kernel.socket_in(netns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.settimeout(0)
        return sock

    def _drain(self, sock: socket.socket, at: str) -> None:
        while True:
            try:
                frame, control, _, address = sock.recvmsg(_FRAME_BYTES, 128)
            except BlockingIOError:
                return
            interface, sent = address[0], address[2] == socket.PACKET_OUTGOING
            # In the switch a frame passes the bridge itself and the port it leaves by, too.
            wanted = interface.startswith("eth") if at else interface != "hub" and not sent
            packet = parse(frame, time_ns=_stamp(control), at=at, sent=sent) if wanted else None
            if packet:
                self.packets.append(packet)


def _stamp(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack_from("=qq", data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()
