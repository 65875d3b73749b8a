"""Boots in order: start state, gap, one boot, report. What can be done before a boot is done here, untimed."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Callable

from coldstart.agent import pagecache
from coldstart.agent.clock import Clock, MonotonicClock, sleep_until
from coldstart.agent.disturbance import Disturbance
from coldstart.agent.oneboot import Cancelled, OneBoot, Prey
from coldstart.agent.records import NOT_COLD, OK, Boot, Order
from coldstart.agent.runtimes import StartFailed
from coldstart.agent.stopwatch import Stopwatch


class BootLoop:
    """Does boots, one at a time. cancel: a descriptor that becomes readable when the sweep must end."""

    def __init__(self, cancel: int, clock: Clock | None = None) -> None:
        self._cancel = cancel
        self._clock = clock or MonotonicClock()
        # One lasting thread: starting one would be part of every boot.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="start")

    def arm(self) -> None:
        """Warm what the first boot would otherwise pay for, and keep the collector out of all of them."""
        self._starter.submit(lambda: None).result()
        gc.collect()
        gc.freeze()
        gc.disable()

    def close(self) -> None:
        """End the lasting thread."""
        self._starter.shutdown()

    def run(self, orders: Iterable[Order], targets: Mapping[str, Prey], report: Callable[[Boot], None]) -> None:
        """All boots in order; each is reported before the next begins. Cancelled leaves nothing running."""
        for order in orders:
            report(self.boot(order, targets[order.target]))
            gc.collect(0)

    def boot(self, order: Order, prey: Prey) -> Boot:
        """One boot, after its gap."""
        clock: Clock = getattr(prey.runtime, "clock", self._clock)
        try:
            cache_bytes = pagecache.make(order.start, prey.prepared.files)
            place = prey.runtime.place(secrets.token_hex(8))
        except (StartFailed, OSError) as error:
            return Boot(order.trial, order.index, "error:place", str(error))
        planned_ns = clock.now_ns() + order.gap_ns  # the gap is idle: what there was to prepare is done
        if not sleep_until(clock, planned_ns, self._cancel):
            raise Cancelled
        disturbance = Disturbance()
        one = OneBoot(prey, place, Stopwatch(clock), self._cancel)
        boot = one.run(order, self._starter)
        if boot.outcome == OK and order.start == "page-cold" and cache_bytes["start"]:
            boot = replace(boot, outcome=NOT_COLD, detail=f"{cache_bytes['start']} bytes could not be evicted")
        achieved_ns = one.watch.instants.get("command", planned_ns)
        flags = boot.flags + disturbance.flags()
        return replace(boot, cache_bytes=cache_bytes, planned_ns=planned_ns, achieved_ns=achieved_ns, flags=flags)
