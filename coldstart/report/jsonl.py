"""Every boot as one JSON object in one line: the raw data, for other tools. Streams: memory does not grow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from coldstart.model import Boot, Cell


def lines(run: str, boots: Iterable[tuple[Cell, Boot]]) -> Iterator[str]:
    """Without line ends."""
    return (json.dumps(record(run, cell, boot), allow_nan=False) for cell, boot in boots)


def record(run: str, cell: Cell, boot: Boot) -> dict[str, Any]:
    """A boot with all that says what it was a boot of."""
    trial = cell.trial
    return {
        "run": run,
        "trial": trial.id,
        "node": trial.node,
        "site": trial.site,
        "arch": cell.arch,
        "target": trial.target,
        "runtime": trial.runtime,
        "start": trial.start,
        "load": trial.load.shape,
        "labels": dict(cell.labels),
        "index": boot.index,
        "outcome": boot.outcome,
        "detail": boot.detail,
        "flags": list(boot.flags),
        "marks_ns": dict(boot.marks_ns),
        "resolution_ns": boot.resolution_ns,
        "planned_ns": boot.planned_ns,
        "achieved_ns": boot.achieved_ns,
        "memory_bytes": dict(boot.memory_bytes),
        "cache_bytes": dict(boot.cache_bytes),
    }
