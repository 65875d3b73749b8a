"""A clock that is turned by hand: product code, because users simulate with it and tests are exact with it.

A thread that sleeps on it wakes at exactly its instant, because time stands still while any thread of the script is
awake, and otherwise jumps to the next instant somebody waits for.
"""

from __future__ import annotations

import heapq
import itertools
import select
import threading
from collections.abc import Mapping
from typing import Callable


class VirtualClock:
    """Time that moves only when everybody waits: straight to the next instant somebody waits for."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._awake = 0  # threads of the script that are running; time stands still for them
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()  # of events at the same instant
        self._changed = threading.Condition()

    def now_ns(self) -> int:
        return self._now_ns

    def enter(self) -> None:
        """A thread of the script runs from now on."""
        with self._changed:
            self._awake += 1

    def leave(self) -> None:
        with self._changed:
            self._awake -= 1
            self._changed.notify_all()

    def at(self, instant_ns: int, action: Callable[[], object]) -> None:
        """Do it then. It also ends the `wait` under way at that instant, so that it can be seen."""
        with self._changed:
            heapq.heappush(self._events, (instant_ns, next(self._order), action))

    def sleep_until(self, instant_ns: int) -> None:
        """For threads of the script."""
        woken = threading.Event()

        def wake() -> None:
            self._awake += 1
            woken.set()

        self.at(instant_ns, wake)
        self.leave()
        woken.wait()

    def wait(self, interest: Mapping[int, str], until_ns: int) -> list[int]:
        """For the boot loop: let time pass, at most until then, at most to the next event."""
        with self._changed:
            self._changed.wait_for(lambda: self._awake == 0)
            self._now_ns = max(self._now_ns, min([until_ns, *(event[0] for event in self._events[:1])]))
            while self._events and self._events[0][0] <= self._now_ns:
                heapq.heappop(self._events)[2]()
            self._changed.wait_for(lambda: self._awake == 0)
        return _readable(interest)


def _readable(interest: Mapping[int, str]) -> list[int]:
    ready, _, _ = select.select([fd for fd, want in interest.items() if want == "r"], [], [], 0)
    return list(ready)
