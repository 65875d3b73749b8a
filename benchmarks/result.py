"""What a benchmark hands back, and how it is printed. Nanoseconds and seconds come in, text goes out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from coldstart import stats

HEAD = ("what", "peer", "n", "ours", "peer's", "figure [95 %]", "goal", "met")
RESAMPLES = 2000


class NotRun(Exception):
    """This benchmark cannot run here; the text says why and what to do."""


@dataclass(frozen=True)
class Row:
    """One figure held against one goal. met: None if it could not be judged. samples: all, the unit in their name."""

    what: str
    peer: str = ""
    n: int = 0
    ours: str = ""
    peers: str = ""
    figure: str = ""
    goal: str = ""
    met: bool | None = None
    samples: dict[str, Sequence[float]] = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        met = {True: "yes", False: "NO", None: "-"}[self.met]
        return (self.what, self.peer, str(self.n or "-"), self.ours, self.peers, self.figure, self.goal, met)

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def not_run(what: str, reason: Exception) -> Row:
    return Row(what, figure=f"not run: {reason}")


def spread(values_ns: Sequence[float]) -> str:
    """Median, p95, p99: `1.23 ms (1.50, 2.01)`."""
    middle, *tail = (stats.quantile(values_ns, q) for q in (0.5, 0.95, 0.99))
    return f"{_ms(middle)} ms ({', '.join(map(_ms, tail))})"


def ms(value_ns: float | None) -> str:
    return f"{_ms(value_ns)} ms"


def median_ms(values_ns: Sequence[float]) -> str:
    """With its interval."""
    found = stats.summarise(values_ns)
    return f"{_ms(found.median)} ms {_interval_ms(found.ci95)}"


def ratio(ours: Sequence[float], peers: Sequence[float]) -> str:
    """Of the medians, with its interval; the i-th of both ran in one turn."""
    found = stats.compare_pair(_turns(ours), _turns(peers))
    interval = "[-]" if found.ci95 is None else "[{:.2f}, {:.2f}]".format(*found.ci95)
    return "-" if found.ratio is None else f"{found.ratio:.2f}x {interval}"


def ratio_interval(ours: Sequence[float], peers: Sequence[float]) -> tuple[float, float]:
    """As above; everything where there are too few."""
    return stats.compare_pair(_turns(ours), _turns(peers)).ci95 or (0.0, math.inf)


def difference(ours: Sequence[float], peers: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Of the medians, with a percentile bootstrap interval over turns: what drifts in a turn drifts for both sides."""
    pairs = np.array([ours, peers], dtype=np.float64)
    picks = np.random.default_rng(0).integers(pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, picks], axis=2)
    low, high = np.quantile(medians[0] - medians[1], [(1 - stats.CONFIDENCE) / 2, (1 + stats.CONFIDENCE) / 2])
    middle_ours, middle_peers = np.median(pairs, axis=1)
    return float(middle_ours - middle_peers), (float(low), float(high))


def difference_ms(ours: Sequence[float], peers: Sequence[float]) -> str:
    value, interval = difference(ours, peers)
    return f"{value / 1e6:+.3f} ms {_interval_ms(interval)}"


def table(rows: Sequence[Row]) -> Table:
    """For a terminal: cells wrap where it is narrow."""
    found = Table(*HEAD, box=box.HORIZONTALS)
    for row in rows:
        found.add_row(*map(escape, row.cells()))
    return found


def markdown(rows: Sequence[Row]) -> str:
    """The same for docs/benchmarks.md."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _ms(value_ns: float | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e6:.3f}"


def _interval_ms(interval: tuple[float, float | None] | None) -> str:
    return "[-]" if interval is None else f"[{_ms(interval[0])}, {_ms(interval[1])}]"


def _turns(values: Sequence[float]) -> dict[int, tuple[float]]:
    return {turn: (value,) for turn, value in enumerate(values)}
