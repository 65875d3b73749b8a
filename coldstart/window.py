"""How much may be under way to a node, so that a thin link never holds more than about a second of it. Pure.

Whatever queues up between here and the node - our socket, a jump host, a slow modem - delays heartbeats, and the news
that the node has gone. So a mark follows every quarter of a window, which the node answers when it has come through:
the window grows while that takes hardly longer than the way itself, and shrinks when it takes much longer.
"""

from __future__ import annotations

FIRST_BYTES = 256 << 10
LEAST_BYTES = 32 << 10
MOST_BYTES = 16 << 20  # 1 Gbit/s over 130 ms
QUICK_NS = 200_000_000
LONG_NS = 800_000_000


class Window:
    """Of one link. limit_bytes: how much may be under way now."""

    def __init__(self) -> None:
        self.limit_bytes = FIRST_BYTES
        self._under_way_bytes = 0
        self._unmarked_bytes = 0
        self._least_ns = LONG_NS  # of all marks: what the way itself takes

    @property
    def is_full(self) -> bool:
        return self._under_way_bytes >= self.limit_bytes

    @property
    def wants_mark(self) -> bool:
        """Always so if it is full and no mark is under way."""
        return self._unmarked_bytes >= self.limit_bytes // 4

    def add(self, size_bytes: int) -> None:
        """So much more is sent."""
        self._under_way_bytes += size_bytes
        self._unmarked_bytes += size_bytes

    def mark(self) -> int:
        """A mark is sent: how many bytes its answer will have let through."""
        marked_bytes, self._unmarked_bytes = self._unmarked_bytes, 0
        return marked_bytes

    def answered(self, marked_bytes: int, took_ns: int) -> None:
        """A mark has come through."""
        self._under_way_bytes -= marked_bytes
        self._least_ns = min(self._least_ns, took_ns)
        if took_ns - self._least_ns < QUICK_NS:
            self.limit_bytes = min(self.limit_bytes + marked_bytes, MOST_BYTES)  # twice as much after each round trip
        elif took_ns - self._least_ns > LONG_NS:
            self.limit_bytes = max(self.limit_bytes // 2, LEAST_BYTES)
