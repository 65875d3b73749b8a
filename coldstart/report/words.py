"""The figures and sentences that the table and the Markdown share: from a document's values to words. Pure.

Every figure carries its unit and at most three digits, for more would be noise; what is not known is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coldstart.units import format_bytes, format_duration

NONE = "-"
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """rank: what a narrow terminal keeps longest, 0 always; text: a cell of the document as words."""

    header: str
    rank: int
    text: Callable[[Entry], str]
    right: bool = True


def printable(line: str) -> str:
    """A node's words are other people's text: no escape sequences of theirs reach a terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)


def where(cell: Entry) -> str:
    return f"{cell['site']}/{cell['node']}"


def duration(seconds: float | None) -> str:
    return NONE if seconds is None else format_duration(round(seconds * 1e9))


def size(count: int | None) -> str:
    return NONE if count is None else format_bytes(count)


def span(low: float | None, high: float | None) -> str:
    """`5.11 .. 5.42 ms`: the unit once if it is the same."""
    if low is None:
        return NONE
    first, last = duration(low), "longer" if high is None else duration(high)
    figure, _, unit = first.partition(" ")
    return f"{figure if last.endswith(' ' + unit) else first} .. {last}"


def median(summary: Entry | None) -> str:
    if not summary or not summary["n"]:
        return NONE
    return "timeout" if summary["median"] is None else duration(summary["median"])


def interval(summary: Entry | None) -> str:
    return span(*summary["ci95"]) if summary and summary["ci95"] else NONE


def spread(summary: Entry) -> str:
    if summary["mean"] is None:
        return NONE
    return duration(summary["mean"]) + ("" if summary["sd"] is None else f" ± {duration(summary['sd'])}")


def extremes(summary: Entry) -> str:
    return span(summary["min"], summary["max"])


def memory(cell: Entry) -> str:
    """With the name of its definition: the definitions differ by several times."""
    readings = cell["memory_bytes"] or {}
    named = (f"{size(readings[kind])} {kind}" for kind in readings if readings[kind] is not None)
    return next(named, NONE)


def labels(cell: Entry) -> str:
    pairs = (f"{key}={value}" for key, value in sorted(cell["labels"].items()))
    return " ".join([cell["arch"], *pairs]).strip()


COLUMNS = (
    Column("where", 0, where, right=False),
    Column("target", 0, lambda cell: str(cell["target"]), right=False),
    Column("start", 0, lambda cell: str(cell["start"]), right=False),
    Column("boots", 1, lambda cell: str(cell["boots"])),
    Column("failed", 1, lambda cell: str(cell["failed"])),
    Column("median", 0, lambda cell: median(cell["ready_seconds"])),
    Column("95 % interval", 2, lambda cell: interval(cell["ready_seconds"])),
    Column("mean ± sd", 4, lambda cell: spread(cell["ready_seconds"])),
    Column("p95", 5, lambda cell: duration(cell["ready_seconds"]["p95"])),
    Column("min .. max", 7, lambda cell: extremes(cell["ready_seconds"])),
    Column("pulled", 2, lambda cell: median(cell["phases_seconds"].get("pulled"))),
    Column("reclaimed", 3, lambda cell: median(cell["reclaim_seconds"])),
    Column("image", 4, lambda cell: size(cell["image_bytes"])),
    Column("sent", 8, lambda cell: size(cell["transfer_bytes"])),
    Column("memory", 4, memory),
    Column("labels", 6, labels, right=False),
)


def heading(document: Entry) -> str:
    started = document["started"].replace("T", " ").replace("Z", " UTC")
    return f"run {document['run']}: {document['playbook']}, {state(document)}, {started}, seed {document['seed']}"


def state(document: Entry) -> str:
    """With how far it came, unless it came to its end."""
    if document["state"] == "finished":
        return "finished"
    ran = sum(cell["boots"] for cell in document["cells"])
    planned = sum(cell["planned"] for cell in document["cells"] if not cell["skipped"])
    return f"{document['state']} with {ran} of {planned} boots"


def not_run(cell: Entry) -> str:
    return f"{where(cell)} {cell['target']} {cell['start']}: {cell['skipped']}"


def missing(entry: Entry) -> str:
    return f"{entry['site']}/{entry['node']}: {entry['missing']} of {entry['planned']} boots: {entry['reason']}"


def factor(ratio: float) -> str:
    """Three digits: `0.681x`, `12.3x`, `1240x`."""
    digits = f"{ratio:.0f}" if ratio >= 1000 else f"{ratio:#.3g}".rstrip(".")
    return digits + "x"


def comparison(entry: Entry) -> str:
    """One sentence: who, by what factor, how sure."""
    a, b = entry["a"], entry["b"]
    place = f"{entry['node']} {entry['start']}: "
    if entry["ratio"] is None:
        return f"{place}{a} and {b} cannot be compared: {_why_not(entry)}"
    figure = f"{factor(entry['ratio'])} {_bounds(entry['ci95'])}"
    basis = ", ".join([_counts(entry["n"]), _probability(entry["p_adjusted"]), *entry["caveats"]])
    if entry["verdict"] == "slower":
        return f"{place}{a} takes {figure} the time of {b}, {basis}"
    if entry["verdict"] == "faster":
        return f"{place}{a} takes {entry['reduction_percent']:.1f} % less time than {b}: {figure}, {basis}"
    if _too_few(entry):
        return f"{place}{a} to {b}: {figure}, too few boots for a verdict, {basis}"
    return f"{place}no difference shown between {a} and {b}: {figure}, {basis}"


def warning(entry: Entry) -> str:
    return f"{entry['text']}. {entry['advice'][:1].upper()}{entry['advice'][1:]}."


def _too_few(entry: Entry) -> bool:
    """Whether more boots might well show what these leave open: no interval yet, or one that does not hold 1."""
    return entry["ci95"] is None or not entry["ci95"][0] <= 1 <= entry["ci95"][1]


def _bounds(ci95: tuple[float, float] | None) -> str:
    if ci95 is None:
        return "[no interval]"
    low, high = (factor(bound).rstrip("x") for bound in ci95)
    return f"[{low}, {high}]"


def _counts(n: list[int]) -> str:
    return f"n = {n[0]}" if n[0] == n[1] else f"n = {n[0]} and {n[1]}"


def _probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _why_not(entry: Entry) -> str:
    return "a median is a timeout" if min(entry["n"]) else "one has no boot that went well"
