"""How often to probe: as fine as possible for 5 % of one core. Pure; one per boot, so that no boot inherits another's.

A boot has CREDIT_NS of CPU time beyond the budget, for when fine probing tells most. One half is for its beginning: a
process is there after 1 ms, and the first rounds, with cold CPU caches, cost three times a later one. The other is for
when the instance's network refuses connections: it is there, so only the program is still awaited. What is left of the
credit is spread over the next SPREAD of the time that has passed; then the interval is what keeps to the budget.
Once a connection is open and only the answer is due, a new one every HEDGE_NS will do.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_INTERVAL_NS = 500_000
MAX_INTERVAL_NS = 20_000_000
HEDGE_NS = 10_000_000
BUDGET = 0.05  # of one core
CREDIT_NS = 4_000_000
SPREAD = 1 / 12
SMOOTHING = 8  # rounds; a single one says little, and what they cost changes while a boot goes on


@dataclass
class Pace:
    """spent_ns: CPU time of all rounds so far; round_ns: of one, smoothed; near: a connection was refused."""

    spent_ns: int = 0
    round_ns: int = 0
    near: bool = False

    def charge(self, cpu_ns: int) -> None:
        """A round took this much."""
        self.round_ns += (cpu_ns - self.round_ns) // SMOOTHING if self.spent_ns else cpu_ns
        self.spent_ns += cpu_ns

    def interval_ns(self, *, elapsed_ns: int, waiting: bool) -> int:
        """How long the next round may last."""
        credit_ns = CREDIT_NS if self.near else CREDIT_NS // 2
        left_ns = credit_ns + BUDGET * elapsed_ns - self.spent_ns
        share = BUDGET + left_ns / max(1, elapsed_ns * SPREAD)
        # Never below a quarter, however overdrawn: one dear round must not leave a gap.
        interval_ns = int(self.round_ns / max(share, BUDGET / 4))
        finest_ns = HEDGE_NS if waiting else MIN_INTERVAL_NS
        return max(finest_ns, min(MAX_INTERVAL_NS, interval_ns))
