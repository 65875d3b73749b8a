"""How often to probe: as fine as possible for 5 % of one core. Pure; one per boot, so that no boot inherits another's.

Beyond the budget a boot has CREDIT_NS of CPU time. It is kept for when only the program itself is awaited (stage NEAR:
its network is there and refuses connections), where fine probing tells most: from the start for a bare process, for the
last tenth of the time for a container. While there is nobody to ask (NOBODY) the budget is saved for that, too. Once a
connection is open and only the answer is due (WAITING), a new one every HEDGE_NS will do.
"""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN, NOBODY, NEAR, WAITING = "unknown", "nobody", "near", "waiting"

EARLY_NS = 10_000_000
EARLY_INTERVAL_NS = 500_000  # a process is there after 1 ms
NEAR_INTERVAL_NS = 750_000
NOBODY_INTERVAL_NS = 5_000_000
MAX_INTERVAL_NS = 20_000_000
HEDGE_NS = 10_000_000
BUDGET = 0.05  # of one core
CREDIT_NS = 4_000_000
SMOOTHING = 8  # rounds; a single one says little, and what they cost changes while a boot goes on


@dataclass
class Pace:
    """spent_ns: CPU time of all rounds so far; round_ns: of one, smoothed."""

    spent_ns: int = 0
    round_ns: int = 0

    def charge(self, cpu_ns: int) -> None:
        """A round took this much."""
        self.round_ns += (cpu_ns - self.round_ns) // SMOOTHING if self.spent_ns else cpu_ns
        self.spent_ns += cpu_ns

    def interval_ns(self, *, elapsed_ns: int, stage: str) -> int:
        """How long the next round may last."""
        interval_ns = int(self.round_ns / BUDGET)
        if stage == NEAR and self.spent_ns <= CREDIT_NS + BUDGET * elapsed_ns:
            interval_ns = min(interval_ns, NEAR_INTERVAL_NS)
        if stage == NOBODY:
            interval_ns = max(interval_ns, NOBODY_INTERVAL_NS)
        if elapsed_ns < EARLY_NS and self.spent_ns <= CREDIT_NS:
            interval_ns = EARLY_INTERVAL_NS
        finest_ns = HEDGE_NS if stage == WAITING else EARLY_INTERVAL_NS
        return max(finest_ns, min(MAX_INTERVAL_NS, interval_ns))
