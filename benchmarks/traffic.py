"""What passes on nodes' links: the kernel's counters of their own interfaces, and how fast they grow.

The counters are of frames with their heads. On a pair of interfaces a frame is what TCP hands over, up to 64 KiB: on a
cable it would be cut into 1500 bytes, and the heads would be 4.6 % more, whoever sends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

INTERFACE = "eth0"
EVERY_S = 0.002
EDGE = 0.01  # of all that came: before and behind it is talk, and TCP that gets going
_RECEIVED, _SENT = 0, 8  # columns of /proc/net/dev, in bytes; the next is of frames


@dataclass(frozen=True)
class Count:
    """Bytes, by the node's side of it; frames: of both directions."""

    received: int = 0
    sent: int = 0
    frames: int = 0

    def __sub__(self, earlier: Count) -> Count:
        return Count(self.received - earlier.received, self.sent - earlier.sent, self.frames - earlier.frames)

    def __add__(self, other: Count) -> Count:
        return Count(self.received + other.received, self.sent + other.sent, self.frames + other.frames)

    @property
    def both(self) -> int:
        return self.received + self.sent


def parse(text: str, interface: str = INTERFACE) -> Count:
    """Of /proc/net/dev; LookupError if there is no such interface."""
    for line in text.splitlines():
        name, _, columns = line.partition(":")
        if name.strip() == interface:
            numbers = [int(number) for number in columns.split()]
            return Count(numbers[_RECEIVED], numbers[_SENT], numbers[_RECEIVED + 1] + numbers[_SENT + 1])
    raise LookupError(f"no interface {interface}")


Sample = tuple[int, int]  # instant, bytes that had been received by then


def rate(samples: Sequence[Sample], edge: float = EDGE) -> float:
    """Bytes a second while nearly all came: from the first sample that has `edge` of them to the first that lacks no
    more than `edge`. 0 if nothing came, or so little that the samples cannot tell."""
    if not samples:
        return 0.0
    first, last = samples[0][1], samples[-1][1]
    low, high = first + edge * (last - first), last - edge * (last - first)
    begin = next(sample for sample in samples if sample[1] >= low)
    end = next(sample for sample in samples if sample[1] >= high)
    took_ns = end[0] - begin[0]
    return (end[1] - begin[1]) * 1e9 / took_ns if took_ns else 0.0


class Links:
    """Of several nodes, together: `with Links(paths) as links:`, then `links.count()`; and samples, all the while.
    paths: of their /proc/net/dev."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files: list[int] = []
        self._over = threading.Event()
        self._sampling = threading.Thread(target=self._sample, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Links:
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._paths]
        self._sampling.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._sampling.join()
        for file in self._files:
            os.close(file)

    def count(self) -> Count:
        """Since the nodes' start."""
        return sum((parse(os.pread(file, 1 << 16, 0).decode()) for file in self._files), Count())

    def _sample(self) -> None:
        while not self._over.wait(EVERY_S):
            received = self.count().received
            self.samples.append((time.monotonic_ns(), received))
