"""The list of runs, newest first: as a table for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coldstart.model import Run
from coldstart.report.document import dumps, instant
from coldstart.report.text import table
from coldstart.report.words import NONE
from coldstart.units import format_duration

_HEADERS = (
    ("run", False),
    ("playbook", False),
    ("state", False),
    ("started (UTC)", False),
    ("took", True),
    ("boots", True),
    ("failed", True),
    ("seed", True),
)


def as_table(runs: Sequence[Run], *, width: int | None = None) -> str:
    """width: of the terminal, None if it is not one."""
    return table([_row(run) for run in runs], _HEADERS, width=width)


def as_json(runs: Sequence[Run]) -> str:
    return dumps([_entry(run) for run in runs]) + "\n"


def _row(run: Run) -> list[str]:
    took = NONE if run.finished_ns is None else format_duration(run.finished_ns - run.started_ns)
    started = instant(run.started_ns).replace("T", " ").rstrip("Z")
    return [run.id, run.playbook, run.state, started, took, str(run.boots), str(run.failed), str(run.seed)]


def _entry(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "playbook": run.playbook,
        "state": run.state,
        "started": instant(run.started_ns),
        "finished": None if run.finished_ns is None else instant(run.finished_ns),
        "boots": run.boots,
        "failed": run.failed,
        "seed": run.seed,
        "version": run.version,
    }
