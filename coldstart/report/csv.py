"""CSV for spreadsheets: `cells` (one line per cell, from a document) and `boots` (one per boot, streaming).

Flat columns with the unit in their names; what is not known is empty. Labels are `key=value`, joined by `;`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coldstart.agent.records import MARKS
from coldstart.model import Boot, Cell
from coldstart.report.document import CACHE, MEMORY, PHASES
from coldstart.report.jsonl import record

_CELL = ("node", "site", "arch", "target", "runtime", "start", "load", "labels", "skipped", "boots", "failed")
_SIZES = ("image_bytes", "transfer_bytes")
_SPANS = ("ready", "resolution", "stop", "reclaim")
_STATISTICS = ("n", "censored", "median", "ci95_low", "ci95_high", "mean", "sd", "p95", "min", "max")
_BOOT = ("run", "trial", "node", "site", "arch", "target", "runtime", "start", "load", "labels", "index", "outcome")
_TIMES = ("resolution_ns", "planned_ns", "achieved_ns")


def cells(document: Mapping[str, Any]) -> str:
    """A document's cells with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CELL_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in document["cells"]:
        writer.writerow({"run": document["run"], "playbook": document["playbook"], **_flat_cell(cell)})
    return text.getvalue()


def boots(run: str, boots: Iterable[tuple[Cell, Boot]]) -> Iterator[str]:
    """The header, then one line per boot; without line ends."""
    writer = csv.DictWriter(_Echo(), BOOT_COLUMNS, lineterminator="")
    yield str(writer.writeheader())
    for cell, boot in boots:
        yield str(writer.writerow(_flat_boot(record(run, cell, boot))))


class _Echo:
    """csv hands what it would write to `write` and returns what that returns: a line."""

    def write(self, line: str) -> str:
        return line


def _flat_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: cell[key] for key in _CELL}
    flat["labels"] = _joined(cell["labels"])
    for name in _SPANS:
        flat |= _flat_summary(name, cell[f"{name}_seconds"])
    for mark in PHASES:
        flat[f"{mark}_median_seconds"] = (cell["phases_seconds"].get(mark) or {}).get("median")
    flat |= {key: cell[key] for key in _SIZES}
    flat |= {f"{kind}_bytes": (cell["memory_bytes"] or {}).get(kind) for kind in MEMORY}
    return flat | {f"cache_{kind}_bytes": (cell["cache_bytes"] or {}).get(kind) for kind in CACHE}


def _flat_summary(name: str, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    low, high = (summary and summary["ci95"]) or (None, None)
    values = {**(summary or {}), "ci95_low": low, "ci95_high": high}
    return {_column(name, statistic): values.get(statistic) for statistic in _STATISTICS}


def _column(name: str, statistic: str) -> str:
    return f"{name}_{statistic}" if statistic in ("n", "censored") else f"{name}_{statistic}_seconds"


CELL_COLUMNS = (
    *("run", "playbook", *_CELL),
    *(_column(name, statistic) for name in _SPANS for statistic in _STATISTICS),
    *(f"{mark}_median_seconds" for mark in PHASES),
    *_SIZES,
    *(f"{kind}_bytes" for kind in MEMORY),
    *(f"cache_{kind}_bytes" for kind in CACHE),
)
BOOT_COLUMNS = (
    *_BOOT,
    *("detail", "flags"),
    *(f"{mark}_ns" for mark in MARKS),
    *_TIMES,
    *(f"{kind}_bytes" for kind in MEMORY),
    *(f"cache_{kind}_bytes" for kind in CACHE),
)


def _flat_boot(boot: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: boot[key] for key in (*_BOOT, "detail", *_TIMES)}
    flat |= {"labels": _joined(boot["labels"]), "flags": ";".join(boot["flags"])}
    flat |= {f"{mark}_ns": at for mark, at in boot["marks_ns"].items()}
    flat |= {f"{kind}_bytes": boot["memory_bytes"].get(kind) for kind in MEMORY}
    return flat | {f"cache_{kind}_bytes": boot["cache_bytes"].get(kind) for kind in CACHE}


def _joined(labels: Mapping[str, str]) -> str:
    return ";".join(f"{key}={value}" for key, value in sorted(labels.items()))
