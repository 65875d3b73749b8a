"""Exports carry every boot, flat and streaming, with the promised names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from coldstart.model import Boot, Cell, Run
from coldstart.report import csv as csv_report
from coldstart.report import document, jsonl, runs

KEYS = {"run", "node", "target", "start", "load", "index", "outcome", "flags", "marks_ns", "resolution_ns"}
MORE = {"site", "arch", "runtime", "detail", "labels", "planned_ns", "achieved_ns", "memory_bytes", "cache_bytes"}


def boots(cells: list[Cell]) -> Iterator[tuple[Cell, Boot]]:
    return ((cell, boot) for cell in cells for boot in cell.boots)


def test_json_lines_have_every_boot(cells: list[Cell]) -> None:
    """One object per line, with what it was a boot of; failures too."""
    lines = list(jsonl.lines("r1", boots(cells)))
    assert len(lines) == 31
    assert not any("\n" in line for line in lines)
    first, *_, last = [json.loads(line) for line in lines]
    assert first.keys() >= KEYS | MORE
    assert (first["run"], first["node"], first["target"], first["marks_ns"]["ready"]) == (
        "r1",
        "vm1",
        "process",
        2_000_000,
    )
    assert (last["outcome"], last["flags"], last["marks_ns"]) == (
        "timeout",
        ["disturbed:steal"],
        {"created": 1_000_000},
    )


def test_csv_of_boots_is_flat(cells: list[Cell]) -> None:
    """A header and a line per boot; marks in nanoseconds, empty where there is none."""
    rows = list(csv.DictReader(csv_report.boots("r1", boots(cells))))
    assert len(rows) == 31
    assert (rows[0]["ready_ns"], rows[0]["guest_ns"], rows[0]["pss_bytes"]) == ("2000000", "", str(3 * 2**20))
    assert (rows[-1]["flags"], rows[-1]["labels"], rows[-1]["ready_ns"]) == ("disturbed:steal", "accel=tcg;net=tap", "")
    assert rows[-1]["detail"] == "no answer <b>within</b> 20 s"


def test_exports_stream(cells: list[Cell]) -> None:
    """Nothing is read ahead: a line comes out as its boot goes in."""

    def endless() -> Iterator[tuple[Cell, Boot]]:
        while True:
            yield cells[0], cells[0].boots[0]

    assert json.loads(next(jsonl.lines("r1", endless())))["index"] == 0
    lines = csv_report.boots("r1", endless())
    assert next(lines).startswith("run,trial,node")
    assert next(lines).startswith("r1,0,vm1")


def test_csv_of_cells(built: dict[str, Any]) -> None:
    """One line per cell, skipped ones too; seconds and bytes in the names."""
    rows = list(csv.DictReader(io.StringIO(csv_report.cells(built))))
    assert [row["target"] for row in rows] == ["process", "container", "unikernel", "nanos"]
    process, _, unikernel, skipped = rows
    assert (process["ready_median_seconds"], process["ready_ci95_low_seconds"]) == ("0.00245", "0.0021")
    assert (process["created_median_seconds"], process["guest_median_seconds"]) == ("0.001", "")
    assert (process["reclaim_n"], process["image_bytes"], process["cgroup_peak_bytes"]) == ("10", "1200000", "")
    assert (unikernel["ready_mean_seconds"], unikernel["ready_censored"]) == ("", "1")
    assert (skipped["skipped"], skipped["ready_median_seconds"], skipped["reclaim_n"]) == (
        "no image for aarch64",
        "",
        "",
    )


def test_csv_of_nothing_still_has_its_header(run: Run) -> None:
    """The columns do not depend on the data."""
    header = csv_report.cells(document.build(run, []))
    assert header.startswith("run,playbook,node")
    assert header.count("\n") == 1


def test_runs_as_json(run: Run) -> None:
    """Times are ISO 8601 in UTC."""
    [entry] = json.loads(runs.as_json([run]))
    assert (entry["run"], entry["started"], entry["finished"]) == (
        run.id,
        "2026-11-22T18:45:30Z",
        "2026-11-22T18:46:30Z",
    )
    assert (entry["boots"], entry["failed"], entry["seed"], entry["state"]) == (31, 1, 7, "finished")
