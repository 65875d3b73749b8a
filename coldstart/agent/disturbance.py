"""What else happened on the node during a boot: reasons to doubt it, recorded with it, never a reason to drop it.

`disturbed:steal`: the hypervisor gave another guest more than STEAL_SHARE of the time. `disturbed:suspended`: the
machine slept (CLOCK_BOOTTIME counts meanwhile, CLOCK_MONOTONIC does not). `disturbed:stepped`: its wall clock was set;
no boot is timed by that one, but whoever set it may have meddled with more.
"""

from __future__ import annotations

import time

from coldstart.agent import facts

TICK_NS = 10_000_000  # USER_HZ is 100 on every architecture we run on
STEAL_SHARE = 0.05


class Disturbance:
    """Watches from construction to `flags`."""

    def __init__(self) -> None:
        self._began = (time.monotonic_ns(), _suspended_ns(), facts.steal_ticks())
        self._wall_ns = _wall_ns()

    def flags(self) -> tuple[str, ...]:
        """`disturbed:...` for everything that was noticed."""
        began_ns, suspended_ns, steal = self._began
        return judge(
            lasted_ns=time.monotonic_ns() - began_ns,
            stolen_ns=(facts.steal_ticks() - steal) * TICK_NS,
            slept_ns=_suspended_ns() - suspended_ns,
            stepped_ns=_wall_ns() - self._wall_ns,
        )


def judge(*, lasted_ns: int, stolen_ns: int, slept_ns: int, stepped_ns: int = 0) -> tuple[str, ...]:
    """Which of it is worth a flag."""
    found: list[str] = []
    if stolen_ns > STEAL_SHARE * lasted_ns:
        found.append("disturbed:steal")
    if slept_ns > TICK_NS:
        found.append("disturbed:suspended")
    elif abs(stepped_ns) > TICK_NS:  # a suspend moves it, too
        found.append("disturbed:stepped")
    return tuple(found)


def _suspended_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def _wall_ns() -> int:
    """Of the wall clock against the monotonic one: what moves it is a step, a correction by slewing moves both."""
    return time.time_ns() - time.monotonic_ns()
