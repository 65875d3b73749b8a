"""How the nodes of a run started together, as data and in words. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from coldstart import stats, synchrony
from coldstart.model import WaveStart
from coldstart.units import format_duration


def build(starts: Sequence[WaveStart], sites: Mapping[str, str]) -> dict[str, Any] | None:
    """Skew over the waves that several nodes shared, and what was known of each node's clock; None if nothing is."""
    if not starts:
        return None
    skews = synchrony.skews(starts)
    by_node: dict[str, list[WaveStart]] = defaultdict(list)
    for start in starts:
        by_node[start.node].append(start)
    return {
        "waves": len({start.wave for start in starts}),
        "nodes": len(by_node),
        "skew_seconds": _spread([skew.skew_ns for skew in skews]),
        "bound_seconds": _spread([skew.bound_ns for skew in skews]),
        "clocks": [_clock(node, sites.get(node, ""), found) for node, found in by_node.items()],
    }


def lines(sync: Mapping[str, Any] | None) -> Iterator[str]:
    """For people, if there was more than one node to speak of."""
    if not sync or sync["nodes"] < 2:
        return
    skew, bound = sync["skew_seconds"], sync["bound_seconds"]
    if skew:
        waves = "one instant" if sync["waves"] == 1 else f"{sync['waves']} instants"
        tail = "" if sync["waves"] == 1 else f", 90 % within {_text(skew['p90'])}, largest {_text(skew['max'])}"
        yield f"{sync['nodes']} nodes, {waves}: skew {_text(skew['median'])}{tail}, known to ±{_text(bound['median'])}"
    for clock in sync["clocks"]:
        bound_text, rtt, late = (_text(clock[f"{name}_seconds"]) for name in ("bound", "rtt", "late"))
        yield f"{clock['site']}/{clock['node']}: clock known to ±{bound_text} (round trip {rtt}), started {late} late"


def _clock(node: str, site: str, starts: Sequence[WaveStart]) -> dict[str, Any]:
    """Medians over its waves."""
    return {
        "node": node,
        "site": site,
        "waves": len(starts),
        "bound_seconds": median(start.bound_ns for start in starts) / 1e9,
        "rtt_seconds": median(start.rtt_ns for start in starts) / 1e9,
        "late_seconds": median(synchrony.late_ns(start) for start in starts) / 1e9,
    }


def _spread(values_ns: Sequence[int]) -> dict[str, float | None] | None:
    if not values_ns:
        return None
    p90 = stats.quantile(values_ns, 0.9)
    return {"median": median(values_ns) / 1e9, "p90": None if p90 is None else p90 / 1e9, "max": max(values_ns) / 1e9}


def _text(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds * 1e9)
