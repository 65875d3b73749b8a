"""The window: wide where the way is quick, narrow where it is long, and never shut for good."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from coldstart.window import LEAST_BYTES, LONG_NS, MOST_BYTES, Window

BLOCK = 32 << 10


class Way:
    """A link of so many bytes a second and a delay: what enters it, leaves it in order."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.delay_s = delay_s
        self.now_s = 0.0
        self._free_s = 0.0
        self.marks: deque[tuple[float, float, int]] = deque()  # arrives, was sent, bytes

    def send(self, size: int) -> None:
        self._free_s = max(self._free_s, self.now_s) + size / self.bytes_per_s

    def mark(self, marked_bytes: int) -> None:
        self.marks.append((max(self._free_s, self.now_s) + self.delay_s, self.now_s, marked_bytes))

    @property
    def queued_s(self) -> float:
        return max(0.0, self._free_s - self.now_s)


def driven(way: Way, total: int) -> tuple[Window, float]:
    """A sender that always has more; the longest that anything was queued once the window had settled."""
    window, sent, worst_s = Window(), 0, 0.0
    while sent < total:
        while window.is_full:
            if window.wants_mark:
                way.mark(window.mark())
            arrives_s, sent_s, marked = way.marks.popleft()  # IndexError: shut for good
            way.now_s = max(way.now_s, arrives_s)
            window.answered(marked, round((way.now_s - sent_s) * 1e9))
        window.add(BLOCK)
        way.send(BLOCK)
        sent += BLOCK
        if window.wants_mark:
            way.mark(window.mark())
        if sent > total // 2:
            worst_s = max(worst_s, way.queued_s)
    return window, worst_s


@given(st.floats(5e3, 1e9), st.floats(0, 0.5))
def test_a_heartbeat_never_waits_long(bytes_per_s: float, delay_s: float) -> None:
    """A second or so of data, or the least there can be, whatever the link."""
    _, worst_s = driven(Way(bytes_per_s, delay_s), 400 * BLOCK)
    assert worst_s < 2.5 + 2 * LEAST_BYTES / bytes_per_s


def test_a_fast_link_is_filled() -> None:
    """100 MB/s over 40 ms: the window has grown beyond what is under way."""
    window, _ = driven(Way(100e6, 0.04), 2000 * BLOCK)
    assert 4e6 < window.limit_bytes <= MOST_BYTES


def test_a_thin_link_is_not() -> None:
    """100 kbit/s: some seconds' worth at the beginning, then the least."""
    window, _ = driven(Way(12_500, 0.05), 200 * BLOCK)
    assert window.limit_bytes == LEAST_BYTES


def test_long_ways_shrink_it_to_the_least_and_no_further() -> None:
    window = Window()
    for took_ns in (0, *[LONG_NS + 1] * 50):
        window.add(BLOCK)
        window.answered(window.mark(), took_ns)
    assert window.limit_bytes == LEAST_BYTES
    assert not window.is_full
