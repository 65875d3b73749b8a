"""Reasons to doubt a result, as data: what was seen, in which cells, and what to do about it. Pure.

Each rule looks at all cells and gives at most one doubt, which names the cells it is about: ten cells with the same
trouble are one line. A rule never drops a boot. Thresholds are constants here, each with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from coldstart import synchrony
from coldstart.agent.records import OK
from coldstart.model import Boot, Cell, WaveStart
from coldstart.stats import Summary, drift, robust_z, span_seconds
from coldstart.units import format_duration

FEW = 30  # below it a median's interval is some tenths of the spread wide, and p95 is nearly the maximum
OUTLIER_SDS = 10  # robust standard deviations; as hyperfine does: rare enough that each is worth a look
DRIFT_SDS = 3  # of the rank correlation, whose sd without a trend is 1 / sqrt(n - 1)
DRIFT_SHARE = 0.05  # a trend that moves the median by less is real perhaps, but of no use to know
COARSE_NS = 10_000_000  # the project's own bound for the 99th percentile of the resolution
LATE_NS = 5_000_000  # beyond what a scheduler does to a thread that waits: the message itself was late
UNSURE_NS = 10_000_000  # as long as a container's start call: such starts are not together in any useful sense
SHOWN = 3  # cells a doubt names before it counts the rest
LONGEST_REASON = 160


@dataclass(frozen=True)
class Doubt:
    """kind: a word for scripts. subject: the cells. text: what was seen. advice: the next step."""

    kind: str
    subject: str
    text: str
    advice: str


@dataclass(frozen=True)
class _Finding:
    cell: Cell
    figure: str = ""


def doubts(cells: Sequence[Cell], summaries: Sequence[Summary]) -> list[Doubt]:
    """All there is to doubt. summaries: `ready` of each cell, in the same order."""
    ran = [(cell, summary) for cell, summary in zip(cells, summaries, strict=True) if cell.boots]
    found = (rule(ran) for rule in _RULES)
    return [doubt for doubt in found if doubt]


def node_doubts(facts: Mapping[str, Mapping[str, str]], starts: Sequence[WaveStart]) -> list[Doubt]:
    """Likewise about nodes. facts: by node; starts: of every wave."""
    late_ns = {start.node: synchrony.late_ns(start) for start in sorted(starts, key=synchrony.late_ns)}
    unsure_ns = {start.node: start.bound_ns for start in sorted(starts, key=lambda start: start.bound_ns)}
    found = (
        _of_nodes("suspended", "suspended during the sweep", _SLEPT, _moved(facts, "slept_ns")),
        _of_nodes("clock-set", "wall clock set during the sweep", _SET, _moved(facts, "stepped_ns")),
        _of_nodes("late", "started after the agreed instant", _LATE, _above(late_ns, LATE_NS)),
        _of_nodes("clock-bound", "clock not known better than", _UNSURE, _above(unsure_ns, UNSURE_NS)),
    )
    return [doubt for doubt in found if doubt]


_SLEPT = "durations do not count the sleep, but caches and clocks changed: keep machines awake, and repeat"
_SET = "no boot is timed by that clock; let it be synchronised before a sweep"
_LATE = "the node was busy, or the message came late: what it shared with others in time, it did not"
_UNSURE = "differences between nodes in time below that mean nothing: use a link with a shorter round trip"


def _moved(facts: Mapping[str, Mapping[str, str]], name: str) -> dict[str, int]:
    return {node: abs(moved_ns) for node, found in facts.items() if (moved_ns := int(found.get(name, 0)))}


def _above(values_ns: Mapping[str, int], limit_ns: int) -> dict[str, int]:
    return {node: value_ns for node, value_ns in values_ns.items() if value_ns > limit_ns}


def _of_nodes(kind: str, text: str, advice: str, found: Mapping[str, int]) -> Doubt | None:
    if not found:
        return None
    shown = [f"{node} ({format_duration(value_ns)})" for node, value_ns in list(found.items())[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Doubt(kind, ", ".join(found), f"{text}: {', '.join(shown)}{more}", advice)


_Ran = Sequence[tuple[Cell, Summary]]
_Rule = Callable[[_Ran], Doubt | None]


def cell_name(cell: Cell) -> str:
    return f"{cell.trial.node} {cell.trial.target} {cell.trial.start}"


def _few(ran: _Ran) -> Doubt | None:
    small = [(cell, summary.n) for cell, summary in ran if summary.n < FEW]
    if not small:
        return None
    fewest = min(n for _, n in small)
    which = "every cell" if len(small) == len(ran) else _listed([_Finding(cell, f"n = {n}") for cell, n in small])
    text = f"n < {FEW} in {which}, the smallest has n = {fewest}"
    return Doubt("few", _subject([cell for cell, _ in small]), text, f"narrower intervals need --boots {FEW} or more")


def _failed(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        reasons = Counter(_reason(boot) for boot in cell.boots if boot.outcome != OK)
        if reasons:
            [(reason, _)] = reasons.most_common(1)
            most = "" if len(reasons) == 1 else "most often "
            found.append(_Finding(cell, f"{reasons.total()} of {len(cell.boots)}, {most}{reason}"))
    advice = "they are in no figure (but a timeout counts as longer than all others): see each with `coldstart export`"
    return _doubt("failed", "boots failed: {}", advice, found)


def _reason(boot: Boot) -> str:
    words = " ".join(boot.detail.split())
    words = words if len(words) <= LONGEST_REASON else words[: LONGEST_REASON - 1] + "…"
    return f"{boot.outcome}: {words}" if words else boot.outcome


def _outliers(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        far = int(np.count_nonzero(np.abs(robust_z(span_seconds(cell, "", "ready"))) > OUTLIER_SDS))
        if far:
            found.append(_Finding(cell, f"{far} of {len(cell.boots)}"))
    advice = "the median hardly moves, mean and sd do: look for other load on the machine"
    return _doubt("outliers", f"boots more than {OUTLIER_SDS} robust sd from the median: {{}}", advice, found)


def _drift(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        change = _trend(span_seconds(cell, "", "ready"))
        if change:
            found.append(_Finding(cell, f"{100 * change:+.0f} %"))
    advice = (
        "something warms up, fills up or throttles: look at temperature, memory and leftovers; compare within blocks"
    )
    return _doubt("drift", "the last third of the boots differs from the first: {}", advice, found)


def _trend(seconds: Sequence[float]) -> float:
    """By what share the last third's median is above the first's; 0 without a trend worth telling."""
    third = len(seconds) // 3
    if third < 3 or abs(drift(seconds)) * (len(seconds) - 1) ** 0.5 < DRIFT_SDS:
        return 0.0
    change = median(seconds[-third:]) / median(seconds[:third]) - 1
    return change if abs(change) >= DRIFT_SHARE else 0.0


def _coarse(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        widths = [boot.resolution_ns for boot in cell.boots if boot.outcome == OK and boot.resolution_ns is not None]
        # A bound is checked, not a figure shown: below n = 100 the largest stands for the 99th percentile.
        worst = int(np.quantile(widths, 0.99, method="higher")) if widths else 0
        if worst > COARSE_NS:
            found.append(_Finding(cell, format_duration(worst)))
    advice = "`ready` may be earlier by that much: something kept the prober busy, or its packets were lost"
    return _doubt("resolution", "the probe was slow to see readiness (99th percentile): {}", advice, found)


def _disturbed(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        told = (flag.partition(":") for boot in cell.boots for flag in boot.flags)
        flags = Counter(what for kind, _, what in told if kind == "disturbed")
        if flags:
            found.append(_Finding(cell, ", ".join(f"{n} {flag}" for flag, n in flags.most_common())))
    advice = "the host took time away from these boots; they are included: repeat on an idle machine"
    return _doubt("disturbed", "disturbed boots: {}", advice, found)


def _left_behind(ran: _Ran) -> Doubt | None:
    found = []
    for cell, _ in ran:
        flags = [
            flag for boot in cell.boots for flag in boot.flags if flag.startswith(("not-stopped:", "not-reclaimed:"))
        ]
        if flags:
            found.append(_Finding(cell, f"{len(flags)} boots, {flags[0]}"))
    advice = "what they held may have disturbed the boots after them: coldstart clean INVENTORY removes what is ours"
    return _doubt("left-behind", "not everything was given back: {}", advice, found)


def _no_memory(ran: _Ran) -> Doubt | None:
    found = [
        _Finding(cell)
        for cell, _ in ran
        if any(boot.outcome == OK for boot in cell.boots)
        and not any(boot.memory_bytes for boot in cell.boots)
        and cell.labels.get("time") != "virtual"
    ]
    advice = "reading another user's processes needs root"
    return _doubt("memory", "memory could not be read: {}", advice, found)


def _labelled(kind: str, label: str, value: str, text: str, advice: str) -> _Rule:
    def rule(ran: _Ran) -> Doubt | None:
        found = [_Finding(cell) for cell, _ in ran if cell.labels.get(label) == value]
        return _doubt(kind, text + ": {}", advice, found)

    return rule


_RULES: tuple[_Rule, ...] = (
    _failed,
    _few,
    _outliers,
    _drift,
    _coarse,
    _disturbed,
    _left_behind,
    _labelled(
        "probe",
        "probe",
        "after-api",
        "probed only after the start call returned, for want of CAP_NET_ADMIN",
        "an instance that answers earlier looks as slow as the call: give the node's user `sudo -n`",
    ),
    _labelled(
        "proxied",
        "net",
        "proxied",
        "answers came through a port proxy",
        "the proxy's time is included and `tcp` is not known: run where the instance's own address can be reached",
    ),
    _labelled(
        "emulated",
        "accel",
        "tcg",
        "the CPU was emulated (tcg)",
        "not to be compared with KVM or with containers on the bare CPU: enable /dev/kvm",
    ),
    _no_memory,
)


def _doubt(kind: str, text: str, advice: str, found: Sequence[_Finding]) -> Doubt | None:
    if not found:
        return None
    return Doubt(kind, _subject([finding.cell for finding in found]), text.format(_listed(found)), advice)


def _subject(cells: Sequence[Cell]) -> str:
    return ", ".join(cell_name(cell) for cell in cells)


def _listed(found: Sequence[_Finding]) -> str:
    shown = [f"{cell_name(f.cell)} ({f.figure})" if f.figure else cell_name(f.cell) for f in found[:SHOWN]]
    more = len(found) - SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
