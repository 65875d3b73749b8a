"""A node's clock as the controller knows it: timestamps of pings -> offset and bound; when to start a wave. Pure.

A ping leaves at `sent_ns`, the node stamps it with `node_ns`, its answer is here at `heard_ns`. The stamp lies between
the two whatever the way there and back took, so node minus controller is `node_ns` minus the middle, wrong by at most
half the round trip: no assumption of symmetry. The ping with the smallest round trip is the best of its time.

An estimate ages: until the two clocks have been compared again, they may drift apart at MAX_RATE, or faster where the
estimates themselves show it (a daemon that slews the node's clock): then at twice what they show. A rate is never used
to *narrow* the bound: at the ages that matter, a second or two, that would gain some 0.1 ms, and be wrong whenever a
daemon changes its mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Two crystals at their worst, 100 ppm, and 500 ppm of slewing: what ntpd and adjtime(3) do. A daemon may slew faster
# (chrony corrects a large offset so); that is believed once it has been seen.
MAX_RATE = 600e-6
JUMP_NS = 10_000_000  # two readings in a row on the node are never so far apart
LEAST_LEAD_NS = 20_000_000  # from the decision to the start, for the message to arrive on a busy node
KEPT = 64  # samples; with a heartbeat every 5 s these are five minutes


@dataclass(frozen=True)
class Sample:
    """One ping. sent, heard: the controller's monotonic clock; node, boottime, realtime: the node's; all in ns."""

    sent_ns: int
    heard_ns: int
    node_ns: int
    boottime_ns: int = 0
    realtime_ns: int = 0

    @property
    def rtt_ns(self) -> int:
        return self.heard_ns - self.sent_ns

    @property
    def middle_ns(self) -> int:
        return (self.sent_ns + self.heard_ns) // 2

    @property
    def offset_ns(self) -> int:
        return self.node_ns - self.middle_ns


@dataclass(frozen=True)
class Offset:
    """Node minus controller at some instant: true within bound_ns. rtt_ns: of the ping it comes from."""

    offset_ns: int
    bound_ns: int
    rtt_ns: int


class NodeClock:
    """What was learnt of one node's clock over one link. Samples in the order in which they were heard."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._rate = MAX_RATE
        self.slept_ns = 0  # longest suspend that was noticed
        self.stepped_ns = 0  # largest step of the wall clock that was noticed

    def add(self, sample: Sample) -> None:
        if self._samples:
            self._compare(self._samples[-1], sample)
        self._samples.append(sample)
        if len(self._samples) > KEPT:
            # The worst goes: a burst of good ones must not be pushed out by heartbeats from within a busy wave.
            self._samples.remove(max(self._samples[:-1], key=lambda old: self._bound_ns(old, sample.heard_ns)))

    def at(self, now_ns: int) -> Offset | None:
        """What can be said of the instant now_ns of the controller's clock; None before the first answer."""
        if not self._samples:
            return None
        best = min(self._samples, key=lambda sample: self._bound_ns(sample, now_ns))
        return Offset(best.offset_ns, self._bound_ns(best, now_ns), best.rtt_ns)

    def wall_offset(self) -> Offset | None:
        """Likewise of the wall clock, against the controller's `realtime - monotonic` of 0: add that yourself."""
        if not self._samples:
            return None
        best = min(self._samples, key=lambda sample: sample.rtt_ns)
        return Offset(best.realtime_ns - best.middle_ns, best.rtt_ns // 2 + 1, best.rtt_ns)

    def _bound_ns(self, sample: Sample, now_ns: int) -> int:
        age_ns = max(abs(now_ns - sample.sent_ns), abs(now_ns - sample.heard_ns))
        return sample.rtt_ns // 2 + 1 + int(age_ns * self._rate)

    def _compare(self, before: Sample, after: Sample) -> None:
        slept_ns = (after.boottime_ns - after.node_ns) - (before.boottime_ns - before.node_ns)
        stepped_ns = (after.realtime_ns - after.node_ns) - (before.realtime_ns - before.node_ns)
        if abs(slept_ns) > JUMP_NS:
            self.slept_ns = max(self.slept_ns, slept_ns, key=abs)
            self._samples.clear()  # what was known of its clock is of before
        elif abs(stepped_ns) > JUMP_NS:
            self.stepped_ns = max(self.stepped_ns, stepped_ns, key=abs)
        else:
            rate = _least_rate(self._samples, after)
            if rate > MAX_RATE:  # twice: what the bounds let us see is the least it can be
                self._rate = max(self._rate, 2 * rate)


def _least_rate(earlier: Sequence[Sample], later: Sample) -> float:
    """The smallest rate that explains how the estimates moved; 0 where their bounds alone do."""
    rates = [0.0]
    for sample in earlier:
        age_ns = later.middle_ns - sample.middle_ns
        unexplained_ns = abs(later.offset_ns - sample.offset_ns) - (later.rtt_ns + sample.rtt_ns) // 2
        if unexplained_ns > 0 and age_ns > 0:
            rates.append(unexplained_ns / age_ns)
    return max(rates)


def lead_ns(rtts_ns: Sequence[int]) -> int:
    """How far ahead an instant must lie so that every node hears of it in time: three round trips of the slowest,
    because a ping's answer was perhaps its luckiest."""
    return LEAST_LEAD_NS + 3 * max(rtts_ns, default=0)
