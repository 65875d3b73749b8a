"""What the probes of one boot have seen, with the instants the boot loop gave it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from coldstart.agent.ready import Seen


@dataclass
class Sight:
    """opened, accepted, first_byte: instants by probe number. `ready` is the first byte of the first valid answer."""

    opened: dict[int, int] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    first_byte: dict[int, int] = field(default_factory=dict)
    tcp_ns: int | None = None
    ready_ns: int | None = None
    resolution_ns: int | None = None

    def note(self, seen: Seen, now_ns: int) -> None:
        if seen.what == "opened":
            self.opened[seen.probe] = now_ns
        elif seen.what == "tcp":
            self.accepted[seen.probe] = now_ns
            self.tcp_ns = self.tcp_ns or now_ns
        elif seen.what == "byte":
            self.first_byte[seen.probe] = now_ns
        elif seen.what == "valid" and self.ready_ns is None:
            self.ready_ns = self.first_byte.get(seen.probe, now_ns)
            before = self._last_unanswered(seen.probe)
            self.resolution_ns = None if before is None else self.ready_ns - before

    def _last_unanswered(self, answered: int) -> int | None:
        """When the last probe was sent that would have been answered, had the instance been there: the truth lies after
        it. The one before the answered one; or a later one, while that still waited for its connection to be taken."""
        taken_ns = self.accepted.get(answered, self.opened.get(answered, 0))
        sent = (at for probe, at in self.opened.items() if probe != answered and at <= taken_ns)
        return max(sent, default=None)
