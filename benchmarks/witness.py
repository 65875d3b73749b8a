"""Is `ready` true? Against the instant at which a packet capture saw the answer's first byte on the instance's link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import capture, result
from benchmarks.booting import Booter, Cancel, Failed, What, booters
from benchmarks.capture import Offset, Sighting
from benchmarks.result import NotRun, Row
from coldstart import stats
from coldstart.agent.records import Boot
from coldstart.agent.runtimes import Place

DEFAULT_N = 300
WARM_UP = 3
# The link of each: a machine's is a tap device on its run's bridge.
WHAT = {
    "docker": What("docker"),
    "process": What("process"),
    "unikernel on tap": What("qemu", "hello-unikernel", options={"accel": "tcg", "net": "tap"}),
}
GOALS_NS = {"error": {0.5: 300_000, 0.99: 2_000_000}, "resolution": {0.5: 2_000_000, 0.99: 10_000_000}}


@dataclass(frozen=True)
class Observed:
    """One boot, and the clocks' distance before and after it."""

    boot: Boot
    place: Place
    before: Offset
    after: Offset


@dataclass(frozen=True)
class Judged:
    """seen_ns: from `command` to what the capture saw, wrong by at most bound_ns."""

    ready_ns: int
    seen_ns: int
    bound_ns: int
    resolution_ns: int | None


def run(n: int, cancel: Cancel) -> list[Row]:
    return [row for name in WHAT for row in _runtime_rows(name, n, cancel)]


def _runtime_rows(name: str, n: int, cancel: Cancel) -> list[Row]:
    try:
        return _rows(name, _measured(name, n, cancel))
    except NotRun as reason:
        return [result.not_run(f"witness: {name}", reason)]


def _measured(name: str, n: int, cancel: Cancel) -> list[Judged]:
    with booters([WHAT[name]], cancel) as (ours,):
        for _ in range(WARM_UP):
            _, place = ours.boot()
        with capture.capture(capture.interface_to(place.address)) as file:
            boots = [_observed(ours) for _ in range(n)]
            capture.settle()
            data = file.read_bytes()
    seen = capture.sightings(data)
    return [_judged(boot, seen) for boot in boots]


def _observed(ours: Booter) -> Observed:
    before = capture.offset()
    boot, place = ours.boot()
    return Observed(boot, place, before, capture.offset())


def _judged(observed: Observed, sightings: Sequence[Sighting]) -> Judged:
    """By the first good answer of this very instance in the time of this boot."""
    boot, before, after = observed.boot, observed.before, observed.after
    source = (observed.place.address, observed.place.port)
    for sighting in sightings:
        at_ns, bound_ns = capture.monotonic_ns(sighting.realtime_ns, before, after)
        if sighting.source == source and before.at_ns <= at_ns <= after.at_ns:
            return Judged(boot.marks_ns["ready"], at_ns - boot.achieved_ns, bound_ns, boot.resolution_ns)
    raise Failed(f"boot {boot.index}: the capture has no answer of {source[0]}:{source[1]}")


def _rows(name: str, boots: Sequence[Judged]) -> list[Row]:
    errors_ns = [boot.ready_ns - boot.seen_ns for boot in boots]
    resolutions_ns = [boot.resolution_ns for boot in boots if boot.resolution_ns is not None]
    bound_ns = max(boot.bound_ns for boot in boots)
    error = Row(
        what=f"witness: {name}, ready - capture",
        peer=f"tcpdump, clocks mapped to within {bound_ns / 1e3:.1f} us",
        n=len(boots),
        ours=result.spread([boot.ready_ns for boot in boots]),
        peers=result.spread([boot.seen_ns for boot in boots]),
        samples={
            "ready_ns": [boot.ready_ns for boot in boots],
            "seen_ns": [boot.seen_ns for boot in boots],
            "bound_ns": [boot.bound_ns for boot in boots],
        },
        **_held_against(errors_ns, "error"),
    )
    resolution = Row(
        what=f"witness: {name}, resolution",
        peer="-",
        n=len(resolutions_ns),
        ours=result.spread(resolutions_ns),
        peers="-",
        samples={"resolution_ns": resolutions_ns},
        **_held_against(resolutions_ns, "resolution"),
    )
    return [error, resolution]


def _held_against(values_ns: Sequence[int], kind: str) -> dict[str, Any]:
    """The row's figure, goal and met. met is None when all that can be judged is met, but not all can be judged."""
    found = {q: stats.quantile(values_ns, q) for q in GOALS_NS[kind]}
    judged = [found_ns <= GOALS_NS[kind][q] for q, found_ns in found.items() if found_ns is not None]
    complete = len(judged) == len(found)
    p99 = f"p99 {result.ms(found[0.99])}, max {result.ms(max(values_ns, default=None))}"
    return {
        "figure": f"{result.median_ms(values_ns)}, {p99}",
        "goal": ", ".join(f"p{round(100 * q)} <= {ns / 1e6:g} ms" for q, ns in GOALS_NS[kind].items()),
        "met": all(judged) if complete or not all(judged) else None,
    }
