"""How often to probe: as fine as possible for 5 % of one core. Pure; one per boot, so that no boot inherits another's.

Steady is the interval that keeps to the budget. Beyond it a boot has CREDIT_NS of CPU time, spent where finer probing
tells most. At first, while FAR_SHARE of what has passed is less than steady: a process is there after 1 ms, and rounds
with cold CPU caches cost three times a later one. Then once the instance's network refuses connections, which it
cannot before it is there: only the program is still awaited, and NEAR_SHARE is precision enough.
Once a connection is open and only the answer is due, a new one every HEDGE_NS will do.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_INTERVAL_NS = 500_000
MAX_INTERVAL_NS = 20_000_000
HEDGE_NS = 10_000_000
BUDGET = 0.05  # of one core
CREDIT_NS = 4_000_000
FAR_SHARE = 1 / 20
NEAR_SHARE = 1 / 300


@dataclass
class Pace:
    """spent_ns: CPU time of all rounds so far; near: a connection was refused by the instance's own network."""

    spent_ns: int = 0
    rounds: int = 0
    near: bool = False

    def charge(self, cpu_ns: int) -> None:
        """A round took this much."""
        self.spent_ns += cpu_ns
        self.rounds += 1

    def interval_ns(self, *, elapsed_ns: int, waiting: bool) -> int:
        """How long the next round may last."""
        interval_ns = self._steady_ns()
        if self.spent_ns <= CREDIT_NS + BUDGET * elapsed_ns:
            fine_ns = int(elapsed_ns * (NEAR_SHARE if self.near else FAR_SHARE))
            interval_ns = min(interval_ns, max(MIN_INTERVAL_NS, fine_ns))
        return max(HEDGE_NS, interval_ns) if waiting else interval_ns

    def _steady_ns(self) -> int:
        mean_ns = self.spent_ns / max(1, self.rounds)
        return max(MIN_INTERVAL_NS, min(MAX_INTERVAL_NS, int(mean_ns / BUDGET)))
