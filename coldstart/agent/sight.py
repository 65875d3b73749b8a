"""What the probes of one boot have seen, with the instants the boot loop gave it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from coldstart.agent.ready import Seen


@dataclass
class Sight:
    """opened, first_byte: instants by probe number. `ready` is the first byte of the first answer found valid."""

    opened: dict[int, int] = field(default_factory=dict)
    first_byte: dict[int, int] = field(default_factory=dict)
    tcp_ns: int | None = None
    ready_ns: int | None = None
    resolution_ns: int | None = None

    def note(self, seen: Seen, now_ns: int) -> None:
        if seen.what == "opened":
            self.opened[seen.probe] = now_ns
        elif seen.what == "tcp" and self.tcp_ns is None:
            self.tcp_ns = now_ns
        elif seen.what == "byte":
            self.first_byte[seen.probe] = now_ns
        elif seen.what == "valid" and self.ready_ns is None:
            self.ready_ns = self.first_byte.get(seen.probe, now_ns)
            before = self.opened.get(seen.probe - 1)
            # Whatever the probe before this one asked had not been answered: the truth lies after it was sent.
            self.resolution_ns = None if before is None else self.ready_ns - before
