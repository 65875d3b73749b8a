"""How well nodes started together: from what each recorded of a wave to skew and how surely it is known. Pure.

An instant of a node's clock is placed on the controller's by the offset that was known when the wave was released. The
skew of a wave is between its first and its last node, and wrong by at most both their bounds together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coldstart.model import WaveStart


@dataclass(frozen=True)
class Skew:
    """Of one wave. bound_ns: how wrong skew_ns may be."""

    wave: int
    nodes: int
    skew_ns: int
    bound_ns: int


def skews(starts: Iterable[WaveStart]) -> list[Skew]:
    """Of every wave that more than one node started."""
    waves: dict[int, list[WaveStart]] = defaultdict(list)
    for start in starts:
        waves[start.wave].append(start)
    return [_skew(wave, found) for wave, found in sorted(waves.items()) if len(found) > 1]


def _skew(wave: int, starts: Sequence[WaveStart]) -> Skew:
    first, last = min(starts, key=_instant_ns), max(starts, key=_instant_ns)
    return Skew(wave, len(starts), _instant_ns(last) - _instant_ns(first), first.bound_ns + last.bound_ns)


def _instant_ns(start: WaveStart) -> int:
    """On the controller's clock."""
    return start.achieved_ns - start.offset_ns


def late_ns(start: WaveStart) -> int:
    """After the instant that was agreed, on the node's own clock: exact."""
    return start.achieved_ns - start.planned_ns
