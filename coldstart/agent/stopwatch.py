"""THE ONLY STOPWATCH: the instants of one boot. No other file reads a clock for a result.

Mark 0, `command`, is taken in the thread that calls the runtime, immediately before it is told to create. The probe
runs meanwhile in another. Both stamp the same stopwatch; a mark keeps its first instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coldstart.agent.clock import Clock


@dataclass
class Stopwatch:
    """Instants of one boot, absolute; `command` is their zero."""

    clock: Clock
    instants: dict[str, int] = field(default_factory=dict)

    def stamp(self, mark: str) -> None:
        self.instants.setdefault(mark, self.clock.now_ns())

    def put(self, mark: str, instant_ns: int | None) -> None:
        if instant_ns is not None:
            self.instants.setdefault(mark, instant_ns)

    def marks_ns(self) -> dict[str, int]:
        """ns since `command`; what a probe saw before it shows as 0."""
        zero = self.instants.get("command", 0)
        return {mark: max(0, at - zero) for mark, at in self.instants.items() if mark != "command"}
