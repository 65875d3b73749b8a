"""A delay line: `python -S -m lab.line SPEC`, one process for each node that is not next door.

This machine's kernel may lack netem. Two taps, one in the switch, one in the node as its eth0; a frame read from one
is written to the other when it is due. Frames of one direction never overtake each other: jitter delays those behind,
as on a real way, and TCP sees no reordering that nobody asked for. While nothing is under way it sleeps in select(2).

Its settings arrive as JSON datagrams on a socket in the node's folder: cutting a link is forgetting every frame,
those under way too, and nobody is told. It ends with its node's removal, and its taps with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import cgroups, kernel

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME_BYTES = 1 << 16
_MOST_FRAMES = 20_000  # under way in one direction; what comes after is lost
_BATCH = 64  # frames read before what is due is looked at again


@dataclass(frozen=True)
class Settings:
    up_ms: float = 0.0
    down_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    cut: bool = False


@dataclass
class Direction:
    """source, sink: descriptors. under_way: (due, frame), in order."""

    source: int
    sink: int
    is_up: bool
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, settings: Settings) -> None:
        """What waits in the source."""
        for _ in range(_BATCH):
            try:
                frame = os.read(self.source, _FRAME_BYTES)
            except OSError:  # nothing more, or its interface is down
                return
            lost = settings.cut or (settings.loss and random.random() < settings.loss)
            if not lost and len(self.under_way) < _MOST_FRAMES:
                self.under_way.append((self._due(settings), frame))

    def _due(self, settings: Settings) -> float:
        delay_ms = (settings.up_ms if self.is_up else settings.down_ms) + random.uniform(-1, 1) * settings.jitter_ms
        due = time.monotonic() + max(0.0, delay_ms) / 1e3
        return max(due, self.under_way[-1][0]) if self.under_way else due

    def give(self, now: float) -> None:
        """What is due."""
        while self.under_way and self.under_way[0][0] <= now:
            try:
                os.write(self.sink, self.under_way.popleft()[1])
            except OSError:  # its interface is down, or its queue full
                pass

    def wait_s(self, now: float) -> float:
        return max(0.0, self.under_way[0][0] - now) if self.under_way else float("inf")


def carry(switch: int, node: int, control: socket.socket, settings: Settings) -> None:
    """For ever."""
    directions = (Direction(node, switch, is_up=True), Direction(switch, node, is_up=False))
    while True:
        now = time.monotonic()
        wait_s = min(direction.wait_s(now) for direction in directions)
        timeout = None if wait_s == float("inf") else wait_s
        readable, _, _ = select.select([switch, node, control.fileno()], [], [], timeout)
        if control.fileno() in readable:
            settings = changed(settings, control)
            if settings.cut:
                for direction in directions:
                    direction.under_way.clear()
        for direction in directions:
            if direction.source in readable:
                direction.take(settings)
            direction.give(time.monotonic())


def changed(settings: Settings, control: socket.socket) -> Settings:
    """By one datagram; the answer tells its sender that it holds from now on."""
    data, sender = control.recvfrom(4096)
    settings = replace(settings, **json.loads(data))
    control.sendto(b"ok", sender)
    return settings


def tap(netns: str, name: str) -> int:
    kernel.enter_net(netns)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return fd


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    cgroups.join(spec["group"])
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.chdir(spec["folder"])  # the path of a socket may have 107 bytes only
    Path("line.sock").unlink(missing_ok=True)
    control.bind("line.sock")
    switch = tap(spec["switch"], spec["port"])
    node = tap(spec["netns"], "eth0")
    if os.fork():
        os._exit(0)  # whoever started it knows by this that both taps are there
    os.setsid()
    carry(switch, node, control, Settings(**spec["settings"]))


if __name__ == "__main__":
    main()
