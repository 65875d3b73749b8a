"""A run as the one JSON object that scripts and dashboards read; every other report is made from it.

Seconds are floats, bytes integers, and what is not known is null: never zero, never NaN. Targets are compared within
one node, start kind and load only: in `a` against `b`, `b` is the one that the playbook names first.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from statistics import median
from typing import Any

from coldstart import stats
from coldstart.agent.records import MARKS, OK
from coldstart.doubts import doubts, node_doubts
from coldstart.model import Boot, Cell, Push, Run, WaveStart
from coldstart.report import synchronised
from coldstart.stats import Comparison, Summary

PHASES = tuple(mark for mark in MARKS if mark not in ("ready", "stop", "gone", "reclaimed"))
MEMORY = ("pss", "cgroup_current", "cgroup_peak")
CACHE = ("files", "before", "start")
# Labels that make two targets incomparable when they differ: the reader must be told beside the ratio.
CAVEATS = ("accel", "probe")


@dataclass(frozen=True)
class Nodes:
    """What a run's nodes left beside their boots. facts, lost (why it ended early): by node."""

    starts: Sequence[WaveStart] = ()
    pushes: Sequence[Push] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)


def build(run: Run, cells: Sequence[Cell], nodes: Nodes | None = None, *, store: str = "") -> dict[str, Any]:
    """The document of a run. store: the path it came from."""
    cells = _by_site(cells)
    summaries = [stats.ready(cell) for cell in cells]
    nodes = nodes or Nodes()
    return {
        "run": run.id,
        "playbook": run.playbook,
        "state": run.state,
        "seed": run.seed,
        "version": run.version,
        "started": instant(run.started_ns),
        "finished": None if run.finished_ns is None else instant(run.finished_ns),
        "store": store,
        "cells": [_cell(cell, summary) for cell, summary in zip(cells, summaries, strict=True)],
        "comparisons": _comparisons(cells, run.seed),
        "pushes": pushed(nodes.pushes),
        "sync": synchronised.build(nodes.starts, {cell.trial.node: cell.trial.site for cell in cells}),
        "missing": list(_missing(cells, nodes.lost)),
        "warnings": [
            dataclasses.asdict(doubt) for doubt in (*doubts(cells, summaries), *node_doubts(nodes.facts, nodes.starts))
        ],
    }


def _by_site(cells: Sequence[Cell]) -> list[Cell]:
    """In the order of the plan, but each site's together, and each node's."""
    sites = list(dict.fromkeys(cell.trial.site for cell in cells))
    nodes = list(dict.fromkeys(cell.trial.node for cell in cells))
    return sorted(cells, key=lambda cell: (sites.index(cell.trial.site), nodes.index(cell.trial.node)))


def _missing(cells: Sequence[Cell], lost: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Nodes that ended early, with the boots that were planned there and never arrived."""
    for node, reason in lost.items():
        own = [cell for cell in cells if cell.trial.node == node and not cell.skipped]
        planned, ran = sum(cell.trial.load.boots for cell in own), sum(len(cell.boots) for cell in own)
        site = own[0].trial.site if own else ""
        yield {"node": node, "site": site, "reason": reason, "planned": planned, "boots": ran, "missing": planned - ran}


def dumps(document: Any) -> str:
    """As strict JSON: a NaN would be a bug, and break the reader."""
    return json.dumps(document, indent=2, allow_nan=False)


def instant(ns: int) -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cell(cell: Cell, ready: Summary) -> dict[str, Any]:
    trial = cell.trial
    outcomes = Counter(boot.outcome for boot in cell.boots)
    phases = {mark: _summary(stats.phase(cell, mark)) for mark in PHASES}
    return {
        "node": trial.node,
        "site": trial.site,
        "arch": cell.arch,
        "target": trial.target,
        "runtime": trial.runtime,
        "start": trial.start,
        "load": trial.load.shape,
        "labels": dict(cell.labels),
        "skipped": cell.skipped,
        "planned": trial.load.boots,
        "boots": len(cell.boots),
        "failed": len(cell.boots) - outcomes[OK],
        "outcomes": dict(outcomes),
        "ready_seconds": _plain(ready),
        "phases_seconds": {mark: summary for mark, summary in phases.items() if summary},
        "resolution_seconds": _summary(stats.resolution(cell)),
        "stop_seconds": _summary(stats.phase(cell, "gone", since="stop")),
        "reclaim_seconds": _summary(stats.phase(cell, "reclaimed", since="stop")),
        "image_bytes": cell.image_bytes,
        "transfer_bytes": _transfer_bytes(cell),
        "memory_bytes": _medians(MEMORY, [boot.memory_bytes for boot in _good(cell)]),
        "cache_bytes": _medians(CACHE, [boot.cache_bytes for boot in _good(cell)]),
    }


def pushed(pushes: Sequence[Push]) -> list[dict[str, Any]]:
    """What came to which node; target: the first there that needed it."""
    return [
        {
            "node": push.node,
            "image": push.image,
            "target": push.target,
            "how": push.how,
            "transfer_bytes": push.transfer_bytes,
            "seconds": push.duration_ns / 1e9,
        }
        for push in pushes
    ]


def _transfer_bytes(cell: Cell) -> int | None:
    """What a boot was sent, where an image is fetched in every one; else what was sent before the first."""
    sent = [boot.transfer_bytes for boot in _good(cell) if boot.transfer_bytes is not None]
    return round(median(sent)) if sent else cell.transfer_bytes


def _good(cell: Cell) -> Iterator[Boot]:
    return (boot for boot in cell.boots if boot.outcome == OK)


def _summary(summary: Summary) -> dict[str, Any] | None:
    return _plain(summary) if summary.n else None


def _plain(summary: Summary) -> dict[str, Any]:
    """To the picosecond: beyond it there is only the rounding of floats, 0.0021 as 0.0020999999999999999."""
    plain = dataclasses.asdict(summary)
    for key, value in plain.items():
        if isinstance(value, float):
            plain[key] = round(value, 12)
    return plain


def _medians(keys: Sequence[str], readings: Sequence[Mapping[str, int]]) -> dict[str, int | None] | None:
    """By definition, over the boots that have it; None if none has any."""
    by_key = {key: [reading[key] for reading in readings if key in reading] for key in keys}
    if not any(by_key.values()):
        return None
    return {key: round(median(values)) if values else None for key, values in by_key.items()}


def _comparisons(cells: Sequence[Cell], seed: int) -> list[dict[str, Any]]:
    pairs = [
        (a, b, stats.compare_pair(stats.blocks(a), stats.blocks(b), seed=seed))
        for group in _groups(cells)
        for b, a in combinations(group, 2)
    ]
    adjusted = _adjusted([(a.trial.node, pair.p_value) for a, _, pair in pairs])
    return [_comparison(a, b, pair, p) for (a, b, pair), p in zip(pairs, adjusted, strict=True)]


def _adjusted(found: Sequence[tuple[str, float | None]]) -> list[float | None]:
    """Holm's, by node: each node is a question of its own, which fifty more nodes must not blunt."""
    result: list[float | None] = [None] * len(found)
    for node in {node for node, _ in found}:
        family = [(place, p) for place, (of, p) in enumerate(found) if of == node and p is not None]
        for (place, _), p in zip(family, stats.holm([p for _, p in family]), strict=True):
            result[place] = p
    return result


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that differ in the target only, in the order of the plan."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.boots:
            groups.setdefault((cell.trial.node, cell.trial.start, cell.trial.load.shape), []).append(cell)
    return list(groups.values())


def _comparison(a: Cell, b: Cell, pair: Comparison, p_adjusted: float | None) -> dict[str, Any]:
    return {
        "a": a.trial.target,
        "b": b.trial.target,
        "node": a.trial.node,
        "start": a.trial.start,
        "load": a.trial.load.shape,
        "n": [pair.n_a, pair.n_b],
        "ratio": pair.ratio,
        "ci95": pair.ci95,
        "reduction_percent": pair.reduction_percent,
        "symmetric_percent": pair.symmetric_percent,
        "p_value": pair.p_value,
        "p_adjusted": p_adjusted,
        "verdict": pair.verdict(p_adjusted),
        "caveats": [
            f"{label}={a.labels[label]} against {label}={b.labels[label]}"
            for label in CAVEATS
            if a.labels.get(label, "") != b.labels.get(label, "") and label in a.labels and label in b.labels
        ],
    }
