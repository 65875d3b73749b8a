"""A simulator: boots that follow a script, in virtual time. For tests, and for trying playbooks without an engine.

The boot loop runs as it is, threads included; only its clock is turned by hand. The probe is a perfect one: it sees the
scripted instants themselves, so that the scripted times are found again to the nanosecond.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coldstart.agent.pace import UNKNOWN
from coldstart.agent.ready import Seen, Wait
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, Handle, Place, Prepared, Stamp, StartFailed
from coldstart.agent.virtualclock import VirtualClock

FAULTS = ("none", "start-fails", "exits", "never-answers", "stale", "hangs")


@dataclass(frozen=True)
class Options:
    """The script of every boot, in time after `command`; `gone` and `reclaimed` count from `stop`.

    fault: what goes wrong in one boot of `fault_every` (1: in each):
    `start-fails`, `exits` (when it should be ready), `never-answers`, `stale` (another boot's nonce), `hangs` (the
    start call returns after 10 s only, and the instance never answers).
    """

    created_ns: int = 1_000_000
    api_return_ns: int = 3_000_000
    tcp_ns: int = 4_000_000
    ready_ns: int = 5_000_000
    gone_ns: int = 2_000_000
    reclaimed_ns: int = 3_000_000
    fault: str = field(default="none", metadata={"choices": FAULTS})
    fault_every: int = 1


class Runtime:
    packaging = "none"
    ready_kinds = ("http", "tcp")
    starts = ("warm", "page-cold")
    typical_boot_ns = 10_000_000
    examples = ({"runtime": "fake", "image": "none"},)

    def __init__(self, options: Options, context: Context) -> None:
        self._options = options
        self._placed = 0
        self.clock = VirtualClock()
        self._instance: Instance | None = None

    def check(self) -> dict[str, str]:
        return {"virtual_time": "yes"}

    def prepare(self, image: Image, ready: Ready, files: Mapping[str, str]) -> Prepared:
        return Prepared(labels={"time": "virtual"})

    def place(self, nonce: str) -> Place:
        self._placed += 1
        self._instance = Instance(self.clock, self._options, self._fault())
        return Place(f"fake-{self._placed}", "192.0.2.1", 80, nonce)

    def start(self, place: Place, stamp: Stamp) -> Handle:
        assert self._instance is not None
        try:
            self._instance.start(stamp)
        finally:
            self.clock.leave()
        return self._instance

    def probe(self, place: Place) -> FakeProbe:
        assert self._instance is not None
        self.clock.enter()  # for the thread of `start`, before the boot loop first waits: time stands still for it
        return FakeProbe(self._instance)

    def stop(self, handle: Instance) -> None:
        handle.end()

    def close(self) -> None:
        pass

    def clean(self, run: str) -> list[str]:
        return []

    def _fault(self) -> str:
        return self._options.fault if self._placed % max(1, self._options.fault_every) == 0 else "none"


class Instance:
    """One scripted instance."""

    def __init__(self, clock: VirtualClock, script: Options, fault: str) -> None:
        self.clock = clock
        self.script = script
        self.fault = fault
        self.began_ns: int | None = None
        self._reclaimed_ns = 0
        self.exited, self._exit = os.pipe()

    def start(self, stamp: Stamp) -> None:
        self.began_ns = self.clock.now_ns()
        self.clock.sleep_until(self.began_ns + self.script.created_ns)
        if self.fault == "start-fails":
            raise StartFailed("the script says so")
        stamp("created")
        api_return_ns = 10_000_000_000 if self.fault == "hangs" else self.script.api_return_ns
        self.clock.sleep_until(self.began_ns + api_return_ns)
        stamp("api_return")
        if self.fault == "exits":
            self.clock.at(self.began_ns + self.script.ready_ns, lambda: os.write(self._exit, b"x"))

    def processes(self) -> Sequence[int]:
        return []

    def interfaces(self) -> Sequence[str]:
        return []

    def exit_code(self) -> int | None:
        return 1 if select.select([self.exited], [], [], 0)[0] else None

    def output(self) -> str:
        return ""

    def remains(self) -> list[str]:
        return ["scripted"] if self.clock.now_ns() < self._reclaimed_ns else []

    def end(self) -> None:
        stop_ns = self.clock.now_ns()
        self.clock.wait({}, stop_ns + self.script.gone_ns)
        self._reclaimed_ns = stop_ns + self.script.reclaimed_ns
        self.clock.at(self._reclaimed_ns, lambda: None)
        os.close(self.exited)
        os.close(self._exit)


class FakeProbe:
    """Sees exactly what the script says, when it says so."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._accepted = False

    def stage(self) -> str:
        return UNKNOWN

    def round(self, wait: Wait, handle: Handle | None) -> Iterator[Seen]:
        yield Seen("opened", 0)
        if self._reach(self._instance.script.tcp_ns, wait) and not self._accepted:
            self._accepted = True
            yield Seen("tcp", 0)
        if not self._reach(self._instance.script.ready_ns, wait):
            return
        if self._instance.fault == "none":
            yield Seen("byte", 0)
            yield Seen("valid", 0)
        elif self._instance.fault == "stale":
            yield Seen("failed", 0)
        wait({})

    def remark(self) -> str:
        return ""

    def close(self) -> None:
        pass

    def _reach(self, offset_ns: int, wait: Wait) -> bool:
        """Wait for a scripted instant, if this round reaches it."""
        began_ns = self._instance.began_ns
        if began_ns is None:
            wait({})
            began_ns = self._instance.began_ns
        if began_ns is None:
            return False
        instant_ns = began_ns + offset_ns
        if self._instance.clock.now_ns() < instant_ns:
            self._instance.clock.at(instant_ns, lambda: None)
            wait({})
        return self._instance.clock.now_ns() >= instant_ns
