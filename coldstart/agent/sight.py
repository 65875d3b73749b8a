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
            self.resolution_ns = self._resolution_ns(seen.probe, self.ready_ns)

    def _resolution_ns(self, answered: int, ready_ns: int) -> int | None:
        """By how much an earlier probe could have had its answer earlier. The answered one's connection was taken at
        some instant; the last other probe that was sent before it was not answered, so nobody was there yet. What the
        workload takes to answer is its own, not ours."""
        taken_ns = self.accepted.get(answered)
        limit_ns = self.opened.get(answered, 0) if taken_ns is None else taken_ns
        sent = [at for probe, at in self.opened.items() if probe != answered and at <= limit_ns]
        if not sent:
            return None
        return (ready_ns if taken_ns is None else taken_ns) - max(sent)
