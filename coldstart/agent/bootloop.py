"""Boots in order: start state, gap, one boot, report. What can be done before a boot is done here, untimed."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable

from coldstart.agent import pagecache, urgency
from coldstart.agent.clock import Clock, MonotonicClock, sleep_until
from coldstart.agent.disturbance import Disturbance
from coldstart.agent.oneboot import Cancelled, OneBoot, Prey
from coldstart.agent.records import IMAGE_ABSENT, NOT_COLD, OK, Boot, Order
from coldstart.agent.runtimes import Place, StartFailed
from coldstart.agent.stopwatch import Stopwatch


@dataclass(frozen=True)
class Staged:
    """A boot that lacks nothing but its instant. place: None if it cannot be, for the reason in `trouble`."""

    order: Order
    prey: Prey
    place: Place | None = None
    cache_bytes: Mapping[str, int] | None = None
    outcome: str = "error:place"
    trouble: str = ""


class BootLoop:
    """Does boots, one at a time. cancel: a descriptor that becomes readable when the sweep must end; shortage: says
    what the node lacks for another boot, '' if nothing."""

    def __init__(self, cancel: int, clock: Clock | None = None, shortage: Callable[[], str] = str) -> None:
        self._cancel = cancel
        self._clock = clock or MonotonicClock()
        self.shortage = shortage
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
            self.release(self.stage(order, targets[order.target]), 0, report)

    def release(self, staged: Staged, at_ns: int, report: Callable[[Boot], None]) -> None:
        """One staged boot, reported. at_ns: its instant on the node's clock; 0: once its gap is over."""
        report(self.boot(staged, at_ns))
        gc.collect(0)

    def stage(self, order: Order, prey: Prey) -> Staged:
        """All that can be done before."""
        short = self.shortage()
        if short:
            return Staged(order, prey, outcome="error:floor", trouble=short)
        try:
            cache_bytes = _stocked(order.start, prey)
            return Staged(order, prey, prey.runtime.place(secrets.token_hex(8)), cache_bytes)
        except (StartFailed, OSError) as error:
            return Staged(order, prey, trouble=str(error))

    def boot(self, staged: Staged, at_ns: int = 0) -> Boot:
        """One boot, after its gap or at its instant."""
        order, prey, cache_bytes = staged.order, staged.prey, staged.cache_bytes
        if staged.place is None or cache_bytes is None:
            return Boot(order.trial, order.index, staged.outcome, staged.trouble)
        clock: Clock = getattr(prey.runtime, "clock", self._clock)
        # The gap is idle: what there was to prepare is done. A virtual clock has no instants of ours.
        planned_ns = at_ns if at_ns and clock is self._clock else clock.now_ns() + order.gap_ns
        one = OneBoot(prey, staged.place, Stopwatch(clock), self._cancel)
        # Looking for disturbances takes a while: before a shared instant that is done early, else after the gap.
        disturbance = Disturbance() if at_ns else None
        if not self._await(clock, planned_ns, released=bool(at_ns)):
            raise Cancelled
        disturbance = disturbance or Disturbance()
        try:
            boot = one.run(order, self._starter)
        finally:
            if prey.supply and order.start == IMAGE_ABSENT:
                prey.supply.settle()
        stayed = cache_bytes.get("start") if order.start == "page-cold" else 0
        warm = f"{stayed} bytes could not be evicted" if stayed else one.shortfall
        if boot.outcome == OK and warm:
            boot = replace(boot, outcome=NOT_COLD, detail=warm)
        achieved_ns = one.watch.instants.get("command", planned_ns)
        flags = boot.flags + disturbance.flags()
        return replace(boot, cache_bytes=cache_bytes, planned_ns=planned_ns, achieved_ns=achieved_ns, flags=flags)

    def _await(self, clock: Clock, instant_ns: int, *, released: bool) -> bool:
        """Whether the instant came, and not the end of the sweep."""
        if not released:
            return sleep_until(clock, instant_ns, self._cancel)
        with urgency.urgent():
            return sleep_until(clock, instant_ns, self._cancel)


def _stocked(start: str, prey: Prey) -> dict[str, int]:
    """Image and page cache as the start kind has them; bytes of the latter."""
    files = prey.prepared.files
    if prey.supply and start == IMAGE_ABSENT:
        prey.supply.absent()
        return {}
    return pagecache.make(start, prey.supply.present(files) if prey.supply else files)
