"""How often to probe: as fine as possible for 5 % of one core. Pure; one per boot, so that no boot inherits another's.

A boot begins with CREDIT_NS of CPU time to spend at the finest interval, because a process is there after 1 ms and the
first rounds, with cold CPU caches, cost three times a later one. After that the interval is what keeps to the budget.
Once a connection is open and only the answer is due, a new one every HEDGE_NS is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_INTERVAL_NS = 500_000
MAX_INTERVAL_NS = 20_000_000
HEDGE_NS = 10_000_000
BUDGET = 0.05  # of one core
CREDIT_NS = 4_000_000


@dataclass
class Pace:
    """spent_ns: CPU time of all rounds so far."""

    spent_ns: int = 0
    rounds: int = 0

    def charge(self, cpu_ns: int) -> None:
        """A round took this much."""
        self.spent_ns += cpu_ns
        self.rounds += 1

    def interval_ns(self, *, elapsed_ns: int, waiting: bool) -> int:
        """How long the next round may last."""
        finest = HEDGE_NS if waiting else MIN_INTERVAL_NS
        if self.spent_ns <= CREDIT_NS + BUDGET * elapsed_ns:
            return finest
        return max(finest, min(MAX_INTERVAL_NS, int(self.spent_ns / self.rounds / BUDGET)))
