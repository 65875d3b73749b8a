"""One boot from `command` to `reclaimed`, on the one stopwatch. The probe runs in the calling thread, the runtime's
start call in another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from coldstart.agent import resources
from coldstart.agent.checks import last_words
from coldstart.agent.clock import sleep_until
from coldstart.agent.pace import Pace
from coldstart.agent.ready import Probe, probe_for
from coldstart.agent.records import IMAGE_ABSENT, OK, TIMEOUT, Boot, Order, Ready
from coldstart.agent.runtimes import Handle, Place, Prepared, Runtime, StartFailed, StopFailed
from coldstart.agent.sight import Sight
from coldstart.agent.stopwatch import Stopwatch
from coldstart.agent.supply import Supply, repository

POLL_NS = 1_000_000
RECLAIM_LIMIT_NS = 10_000_000_000
NOT_ITS_OWN = ("proxied", "user")  # a proxy, and QEMU's own stack, accept before the instance listens


class Cancelled(Exception):
    """The sweep was told to end; the boot in progress is undone and not a result."""


@dataclass(frozen=True)
class Prey:
    """A prepared target: what is booted again and again. supply: where its image comes from; None if it has none."""

    runtime: Runtime
    ready: Ready
    prepared: Prepared
    supply: Supply | None = None


class OneBoot:
    """The state of one boot; lives for one call of `run`."""

    def __init__(self, prey: Prey, place: Place, watch: Stopwatch, cancel: int) -> None:
        self._prey = prey
        self._place = place
        self.watch = watch
        self._cancel = cancel
        self._sight = Sight()
        self._pace = Pace()
        self._handle: Handle | None = None
        self.shortfall = ""  # why its image was not wholly absent
        self._exited = False
        self._cancelled = False

    def run(self, order: Order, starter: ThreadPoolExecutor) -> Boot:
        starting = starter.submit(self._start, order)
        outcome, detail = "", ""
        memory: dict[str, int] = {}
        flags: tuple[str, ...] = ()
        try:
            outcome, detail = self._watch(starting)
        finally:
            # Cancelled or not, what was started must be known before it can be stopped.
            handle = self._settled(starting)
            if handle is not None:
                memory, flags = self._end(handle, order.hold_ns, outcome == OK)
        if outcome == OK and handle is None:
            outcome, detail = "error:start", str(starting.exception())
        self._put_sight(outcome == OK)
        marks_ns = self.watch.marks_ns()
        resolution_ns = self._sight.resolution_ns if outcome == OK else None
        if resolution_ns is not None:  # a probe before `command` knows no more than `command` itself
            resolution_ns = min(resolution_ns, marks_ns["ready"])
        return Boot(order.trial, order.index, outcome, detail, marks_ns, resolution_ns, 0, 0, memory, flags=flags)

    def _put_sight(self, was_ready: bool) -> None:
        if self._prey.prepared.labels.get("net") not in NOT_ITS_OWN:
            self.watch.put("tcp", self._sight.tcp_ns)
        if was_ready:
            self.watch.put("ready", self._sight.ready_ns)

    def _start(self, order: Order) -> Handle:
        self.watch.stamp("command")
        if order.start == IMAGE_ABSENT and self._prey.supply:
            self.shortfall = self._prey.supply.obtain(repository(order.trial, order.index))
            self.watch.stamp("pulled")
        handle = self._prey.runtime.start(self._place, self.watch.stamp)
        self.watch.stamp("api_return")
        return handle

    def _watch(self, starting: Future[Handle]) -> tuple[str, str]:
        """Probe until there is an outcome: (outcome, detail)."""
        own_probe = getattr(self._prey.runtime, "probe", None)
        probe: Probe = own_probe(self._place) if own_probe else probe_for(self._prey.ready, self._place)
        deadline_ns = self.watch.clock.now_ns() + self._prey.ready.timeout_ns
        try:
            if not self._place.early:
                self._await_start(starting, deadline_ns)
            while True:
                verdict = self._verdict(starting, deadline_ns)
                if verdict is not None:
                    return verdict[0], verdict[1] + (probe.remark() if verdict[0] == TIMEOUT else "")
                self._round(probe, starting, deadline_ns)
        finally:
            probe.close()

    def _round(self, probe: Probe, starting: Future[Handle], deadline_ns: int) -> None:
        if starting.done() and self._handle is None and starting.exception() is None:
            self._handle = starting.result()
        now_ns = self.watch.clock.now_ns()
        elapsed_ns = now_ns + self._prey.ready.timeout_ns - deadline_ns
        interval_ns = self._pace.interval_ns(elapsed_ns=elapsed_ns, stage=probe.stage())
        until_ns = min(deadline_ns, now_ns + interval_ns)
        cpu_ns = time.thread_time_ns()
        for seen in probe.round(lambda interest: self._wait(interest, until_ns), self._handle):
            self._sight.note(seen, self.watch.clock.now_ns())
            if self._sight.ready_ns is not None:
                break
        self._pace.charge(time.thread_time_ns() - cpu_ns)

    def _wait(self, interest: Mapping[int, str], until_ns: int) -> list[int]:
        """The probe's wait: the end of the instance or of the sweep cuts the round short."""
        if self._exited or self._cancelled:
            return []
        watched = {**interest, self._cancel: "r"}
        if self._handle is not None:
            watched[self._handle.exited] = "r"
        ready = self._wait_and_hear(watched, until_ns, console_alone=not interest)
        self._cancelled = self._cancel in ready
        self._exited = self._handle is not None and self._handle.exited in ready
        return [] if self._cancelled else [fd for fd in ready if fd in interest]

    def _wait_and_hear(self, watched: Mapping[int, str], until_ns: int, *, console_alone: bool) -> list[int]:
        """Wait; what the guest says on its console meanwhile is taken in, and cuts the round short only if the probe
        looks at nothing else."""
        while True:
            console = getattr(self._handle, "console", -1)
            ready = self.watch.clock.wait({**watched, console: "r"} if console >= 0 else watched, until_ns)
            if console not in ready:
                return ready
            if self._handle.hear():  # type: ignore[union-attr]  # who has a console can be heard
                self.watch.stamp("guest")
            if console_alone or len(ready) > 1:
                return ready

    def _verdict(self, starting: Future[Handle], deadline_ns: int) -> tuple[str, str] | None:
        if self._cancelled:
            if self._prey.supply:
                self._prey.supply.give_up()
            raise Cancelled
        failure = starting.exception() if starting.done() else None
        if isinstance(failure, StartFailed):
            return "error:start", str(failure)
        if failure is not None:
            raise failure
        if self._sight.ready_ns is not None:
            early = self._sight.ready_ns < self.watch.instants.get("command", 0)
            return ("error:stale", "something else answered before the start") if early else (OK, "")
        if self._exited and self._handle is not None:
            return "error:exited", last_words(self._handle)
        if self.watch.clock.now_ns() >= deadline_ns:
            return TIMEOUT, f"not ready within {self._prey.ready.timeout_ns / 1e9:g} s"
        return None

    def _await_start(self, starting: Future[Handle], deadline_ns: int) -> None:
        """No probe before the start call has returned: without a neighbour entry it would be answered a second late."""
        clock = self.watch.clock
        while not (starting.done() or self._cancelled or clock.now_ns() >= deadline_ns):
            self._cancelled = bool(clock.wait({self._cancel: "r"}, clock.now_ns() + POLL_NS // 2))

    def _settled(self, starting: Future[Handle]) -> Handle | None:
        """The handle, once the start call has returned; runtimes bound it themselves. None if it failed."""
        while not starting.done():
            self.watch.clock.wait({}, self.watch.clock.now_ns() + POLL_NS)
        return None if isinstance(starting.exception(), StartFailed) else starting.result()

    def _end(self, handle: Handle, hold_ns: int, was_ready: bool) -> tuple[dict[str, int], tuple[str, ...]]:
        """Measure, hold, stop, see everything given back: (memory, flags). For every instance that was started."""
        clock, watch = self.watch.clock, self.watch
        held = resources.footprint(handle.processes(), handle.interfaces())
        memory = resources.memory(held) if was_ready else {}
        if was_ready:
            sleep_until(clock, clock.now_ns() + hold_ns, self._cancel)
        watch.stamp("stop")
        try:
            self._prey.runtime.stop(handle)
        except StopFailed as error:
            return memory, (f"not-stopped:{error}",)
        watch.stamp("gone")
        give_up_ns = clock.now_ns() + RECLAIM_LIMIT_NS
        while True:
            left = resources.remains(held) + handle.remains()
            if not left:
                watch.stamp("reclaimed")
                return memory, ()
            if clock.now_ns() >= give_up_ns:
                return memory, (f"not-reclaimed:{left[0]}",)
            clock.wait({}, clock.now_ns() + POLL_NS)
