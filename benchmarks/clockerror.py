"""Is a node's clock where we say it is? The estimate against a known truth, and whether the bound we give holds.

The real conversation pings; the truth is known from elsewhere:

* the real agent in a time namespace, whose monotonic clock is this machine's plus a shift that we chose: the kernel
  adds it to one and the same reading, so the true offset is exact;
* the same behind a link that holds back bytes one way, by a fixed or a random time;
* a scripted node whose clock is a function of ours: running 100 ppm fast or slow, or slewed by 500 ppm half-way.

After every answer two estimates are held against the truth: that of this ping alone (but for the slewed clocks, which
nobody can tell by one), and that of all pings so far; at once and up to 5 s later, as if nothing had been heard since.
All in nanoseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import result
from benchmarks.booting import Cancel
from benchmarks.result import NotRun, Row
from coldstart import bundle, local, stats
from coldstart.clock import NodeClock, Sample
from coldstart.link import Conversation, Link
from coldstart.memory import Far, MemoryLink
from coldstart.model import Node

DEFAULT_N = 6  # bursts of 20 pings each, over every link with a namespace behind it
SHIFTS_S = (1, 86_400, 400 * 86_400)
AGES_NS = (0, 500_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000)
MEMORY_S = 20.0  # how long each scripted clock is watched; they run side by side
PAUSE_S = (0.2, 0.8)  # between its bursts
BURST = 5
PPM = 1_000  # of a second, in ns
SLEW_PPM = 500  # the most that adjtime(3) and NTP's daemons do
LEARNT_NS = 2_000_000_000  # of several bursts: by then their estimates have shown that a clock is being slewed
GOAL = "100 % inside"

Clock = Callable[[int], int]  # our instant -> the node's reading
Wait_s = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """An estimate at some instant: how far off it was, and how far it said it might be. heard_ns, at_ns: on our clock,
    when the newest of its pings was answered, and of which instant it speaks."""

    error_ns: int
    bound_ns: int
    heard_ns: int
    at_ns: int

    @property
    def beyond_ns(self) -> int:
        """By how much the bound was wrong; not positive: it held."""
        return abs(self.error_ns) - self.bound_ns

    @property
    def inside(self) -> bool:
        return self.beyond_ns <= 0


class Recorded(NodeClock):
    """A clock that keeps every sample it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Sample] = []

    def add(self, sample: Sample) -> None:
        self.told.append(sample)
        super().add(sample)


@dataclass
class Delayed:
    """A link whose bytes are held back: up, on their way to the node, and down. In order, as over any stream."""

    link: Link
    up_s: Wait_s
    down_s: Wait_s
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, data: bytes) -> None:
        async with self._turn:
            await asyncio.sleep(self.up_s())
            await self.link.write(data)

    async def read(self) -> bytes:
        data = await self.link.read()
        await asyncio.sleep(self.down_s())
        return data

    async def close(self) -> str:
        return await self.link.close()


def run(n: int, cancel: Cancel) -> list[Row]:
    return [*_namespace_rows(n, cancel), *asyncio.run(_scripted_rows(cancel))]


def cases(samples: Sequence[Sample], truth: Clock, *, alone: bool = True) -> list[Case]:
    """Every estimate that could have been had of these pings, and of each its errors as it ages. alone: also of each
    ping as if it were the only one."""
    found: list[Case] = []
    sofar = NodeClock()
    for sample in samples:
        for clock in (sofar, NodeClock())[: 1 + alone]:
            clock.add(sample)
            found += [_case(clock, sample.heard_ns, age_ns, truth) for age_ns in AGES_NS]
    return found


def _case(clock: NodeClock, heard_ns: int, age_ns: int, truth: Clock) -> Case:
    at_ns = heard_ns + age_ns
    estimate = clock.at(at_ns)
    assert estimate is not None  # it was told something
    true_ns = truth(at_ns) - at_ns
    return Case(estimate.offset_ns - true_ns, estimate.bound_ns, heard_ns, at_ns)


def row(what: str, truth: str, found: Sequence[Case]) -> Row:
    errors_ns, bounds_ns = [abs(case.error_ns) for case in found], [case.bound_ns for case in found]
    inside = sum(case.inside for case in found)
    beyond = (
        f", the others by {result.ms(max(case.beyond_ns for case in found))} at most" if inside < len(found) else ""
    )
    return Row(
        what=f"clock error: {what}",
        peer=truth,
        n=len(found),
        ours=f"error {_spread(errors_ns)}",
        figure=f"{inside / len(found):.2%} inside the bound of {_spread(bounds_ns)}{beyond}",
        goal=GOAL,
        met=inside == len(found),
        samples={"error_ns": [case.error_ns for case in found], "bound_ns": bounds_ns},
    )


def _spread(values_ns: Sequence[float]) -> str:
    return f"{result.ms(stats.quantile(values_ns, 0.5))} (p99 {result.ms(stats.quantile(values_ns, 0.99))})"


# --- the real agent in a time namespace ---


def _namespace_rows(n: int, cancel: Cancel) -> list[Row]:
    chance = random.Random(n)
    delays: dict[str, tuple[Wait_s, Wait_s]] = {
        "time namespace": (lambda: 0.0, lambda: 0.0),
        "the same, 30 ms more on the way up": (lambda: 0.030, lambda: 0.0),
        "the same, 30 ms more on the way down": (lambda: 0.0, lambda: 0.030),
        "the same, 0-40 ms up, 0-5 ms down": (lambda: chance.uniform(0, 0.040), lambda: chance.uniform(0, 0.005)),
    }
    try:
        _check_namespaces()
        return [asyncio.run(_namespace_row(what, delay, n, cancel)) for what, delay in delays.items()]
    except NotRun as reason:
        return [result.not_run("clock error: time namespace", reason)]


def _check_namespaces() -> None:
    if os.geteuid() != 0:
        raise NotRun("a time namespace needs root")
    if shutil.which("unshare") is None:
        raise NotRun("unshare is not installed (util-linux)")
    done = subprocess.run([*_unshared(1), "true"], capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"no time namespaces here: {done.stderr.strip()[-200:]}")


def _unshared(shift_s: int) -> list[str]:
    shift = str(shift_s)
    return ["unshare", "--time", "--monotonic", shift, "--boottime", shift, "--fork", "--kill-child", "--"]


async def _namespace_row(what: str, delay: tuple[Wait_s, Wait_s], n: int, cancel: Cancel) -> Row:
    found: list[Case] = []
    for shift_s in SHIFTS_S:
        async with _shifted(shift_s, delay) as talk:
            told = _recorded(talk)
            for _ in range(n):
                cancel.check()
                await talk.compare_clocks()
        found += cases(told, lambda at_ns, shift_s=shift_s: at_ns + shift_s * 1_000_000_000)
    return row(what, "the kernel's own shift of one clock", found)


@asynccontextmanager
async def _shifted(shift_s: int, delay: tuple[Wait_s, Wait_s]) -> AsyncIterator[Conversation]:
    """A conversation with an agent that lives shift_s in the future."""
    with _interpreter(shift_s) as python:
        node = Node("shifted", settings={"ansible_python_interpreter": str(python)})
        link = Delayed(await local.connect(node, bundle.build()), *delay)
        async with Conversation(node.name, link) as talk:
            yield talk


@contextlib.contextmanager
def _interpreter(shift_s: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coldstart-bench-") as folder:
        script = Path(folder, "python")
        script.write_text(f'#!/bin/sh\nexec {" ".join(_unshared(shift_s))} {sys.executable} "$@"\n')
        script.chmod(0o755)
        yield script


def _recorded(talk: Conversation) -> list[Sample]:
    talk.clock = Recorded()
    return talk.clock.told


# --- scripted clocks ---


def drifting(began_ns: int, ppm: int) -> Clock:
    """A clock that was right at began_ns and has been gaining ppm since."""
    return lambda at_ns: at_ns + (at_ns - began_ns) * ppm // 1_000_000


def slewed(began_ns: int, ppm: int, from_ns: int) -> Clock:
    """The same, with a daemon that takes over at from_ns and pushes it SLEW_PPM further."""
    own = drifting(began_ns, ppm)
    return lambda at_ns: own(at_ns) + max(at_ns - from_ns, 0) * SLEW_PPM // 1_000_000


async def _scripted_rows(cancel: Cancel) -> list[Row]:
    now_ns = time.monotonic_ns()
    half_ns = now_ns + round(MEMORY_S / 2 * 1e9)
    steady = [drifting(now_ns, ppm) for ppm in (-100, -50, 0, 50, 100)]
    turning = [slewed(now_ns, ppm, half_ns) for ppm in (-100, 0, 100)]
    found = await asyncio.gather(*(_watched(clock, cancel) for clock in [*steady, *turning]))
    told = list(zip([*steady, *turning], found, strict=True))
    steadies = [case for clock, samples in told[: len(steady)] for case in cases(samples, clock)]
    turned = [case for clock, samples in told[len(steady) :] for case in cases(samples, clock, alone=False)]
    seen, unseen = told_apart(turned, half_ns)
    known = "a function of our clock"
    return [
        row("drift of -100 to 100 ppm", known, steadies),
        row(f"slewed by {SLEW_PPM} ppm, but for its beginning", known, seen),
        row(f"slewed by {SLEW_PPM} ppm, since the last answer or {LEARNT_NS / 1e9:g} s", known, unseen),
    ]


def told_apart(found: Sequence[Case], from_ns: int) -> tuple[list[Case], list[Case]]:
    """Those that could know of what began at from_ns, or did not need to; and those that could not."""
    seen: list[Case] = []
    unseen: list[Case] = []
    for case in found:
        (unseen if case.heard_ns - LEARNT_NS < from_ns < case.at_ns else seen).append(case)
    return seen, unseen


async def _watched(clock: Clock, cancel: Cancel) -> list[Sample]:
    """Bursts of pings, for as long as MEMORY_S."""
    chance = random.Random(0)
    until_ns = time.monotonic_ns() + round(MEMORY_S * 1e9)
    async with Conversation("scripted", MemoryLink(lambda far: _answering(far, clock))) as talk:
        told = _recorded(talk)
        while time.monotonic_ns() < until_ns:
            cancel.check()
            for _ in range(BURST):
                await talk.attend(talk._pinged())
            await talk.attend(asyncio.sleep(chance.uniform(*PAUSE_S)))
    return told


async def _answering(far: Far, clock: Clock) -> None:
    far.clocks = lambda: _reading(clock(time.monotonic_ns()))
    while (message := await far.hear()) is not None:
        if message["type"] == "bye":
            far.say("bye")
            return


def _reading(now_ns: int) -> dict[str, int]:
    return {"monotonic_ns": now_ns, "boottime_ns": now_ns, "realtime_ns": now_ns}
