"""The node's clock as the boot loop sees it: what time it is, and waiting for it or for a descriptor.

A runtime may bring a clock of its own (`fake` does: virtual time); everything else uses `MonotonicClock`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Protocol

SPIN_NS = 200_000  # at most this long; sleeping alone would be late by the timer's slack and a scheduling latency


class Clock(Protocol):
    def now_ns(self) -> int: ...

    def wait(self, interest: Mapping[int, str], until_ns: int) -> list[int]:
        """Descriptors of `interest` ("r" or "w") that are ready; none once it is `until_ns`."""


class MonotonicClock:
    """CLOCK_MONOTONIC. select(2) and not poll(2): a probe interval is 1 ms, poll would round it."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wait(self, interest: Mapping[int, str], until_ns: int) -> list[int]:
        readers = [fd for fd, want in interest.items() if want == "r"]
        writers = [fd for fd, want in interest.items() if want == "w"]
        left_s = max(0, until_ns - time.monotonic_ns()) / 1e9
        readable, writable, _ = select.select(readers, writers, [], left_s)
        return readable + writable


def sleep_until(clock: Clock, instant_ns: int, cancel: int) -> bool:
    """Sleep, then spin the last stretch. False if `cancel` became readable first."""
    while clock.now_ns() < instant_ns - SPIN_NS:
        if clock.wait({cancel: "r"}, instant_ns - SPIN_NS):
            return False
    while clock.now_ns() < instant_ns:
        clock.wait({}, instant_ns if not isinstance(clock, MonotonicClock) else 0)
    return True
