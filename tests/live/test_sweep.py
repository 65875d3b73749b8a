"""A whole sweep of this machine, from the command line, and everything that can be done with its results."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from conftest import Coldstart, ask

pytestmark = pytest.mark.live

PROCESS = "process: {runtime: process, image: hello}"
CONTAINER = "container: {runtime: docker, image: hello}"
LOCAL = "inventories/local.yaml"
CELL_KEYS = {"node", "site", "arch", "target", "runtime", "start", "load", "labels", "boots", "failed", "ready_seconds"}
CELL_KEYS |= {"phases_seconds", "resolution_seconds", "image_bytes", "transfer_bytes", "memory_bytes"}
CELL_KEYS |= {"reclaim_seconds"}
SUMMARY_KEYS = {"median", "mean", "sd", "p95", "min", "max", "ci95"}
COMPARISON_KEYS = {"a", "b", "node", "start", "ratio", "ci95", "reduction_percent", "symmetric_percent", "p_value"}
BOOT_KEYS = {"run", "node", "target", "start", "load", "index", "outcome", "flags", "marks_ns", "resolution_ns"}


def test_a_sweep_of_this_machine(coldstart: Coldstart, engine: str) -> None:
    """All four wraps, warm and cold, none failed; then every way to look at the results, and a clean node."""
    done = coldstart.sweep(LOCAL, "--boots", "3", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not coldstart.leftovers()
    document = json.loads(done.stdout)
    check_document(document)
    records = coldstart.records()
    for record in records:
        check_boot(record)
    shown = json.loads(coldstart("show", "latest", "--format", "json").stdout)
    assert shown == document
    table = coldstart("export", "latest", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["ready_ns"] for row in rows] == [str(record["marks_ns"]["ready"]) for record in records]
    runs = json.loads(coldstart("runs", "--format", "json").stdout)
    assert [run["run"] for run in runs] == [document["run"]]
    assert document["run"] in coldstart("runs").stdout
    check_images_cleaned(coldstart)


def check_document(document: dict[str, Any]) -> None:
    """All keys that scripts depend on, and figures in them."""
    assert {"run", "playbook", "cells", "comparisons", "warnings"} <= set(document)
    cells = document["cells"]
    assert {(cell["target"], cell["start"]) for cell in cells} == {
        (target, start) for target in ("process", "container", "vm", "unikernel") for start in ("warm", "page-cold")
    }
    for cell in cells:
        assert set(cell) >= CELL_KEYS
        assert set(cell["ready_seconds"]) >= SUMMARY_KEYS
        assert (cell["boots"], cell["failed"]) == (3, 0)
        assert 0 < cell["ready_seconds"]["min"] <= cell["ready_seconds"]["median"] <= cell["ready_seconds"]["max"]
        assert cell["image_bytes"] > 0
        assert cell["transfer_bytes"] > 0
        assert cell["memory_bytes"]["pss"] > 0
        assert cell["reclaim_seconds"]["median"] > 0
        assert set(cell["phases_seconds"]) >= {"created", "api_return", "tcp"}
    for comparison in document["comparisons"]:
        assert set(comparison) >= COMPARISON_KEYS
    assert len(document["comparisons"]) == 2 * 6


def check_boot(record: dict[str, Any]) -> None:
    """Marks in an order that can be, a known resolution, memory by name, and the start kind as it was declared."""
    assert set(record) >= BOOT_KEYS
    marks = record["marks_ns"]
    assert record["outcome"] == "ok"
    assert not [flag for flag in record["flags"] if not flag.startswith("disturbed:")]
    assert 0 < marks["created"] <= marks["api_return"]
    assert marks["tcp"] <= marks["ready"] <= marks["stop"] <= marks["gone"] <= marks["reclaimed"]
    # A probe may be answered at its first attempt: then, and only then, nothing bounds it from below.
    assert record["resolution_ns"] is None or 0 < record["resolution_ns"] < 100_000_000
    if record["target"] == "container":
        assert record["resolution_ns"] is not None
        assert {"pss", "cgroup_current"} <= set(record["memory_bytes"])
        assert record["labels"] == {"net": "own", "probe": "early"}
    cache = record["cache_bytes"]
    assert cache["start"] == (0 if record["start"] == "page-cold" else cache["files"])
    assert cache["files"] > 0


def check_images_cleaned(coldstart: Coldstart) -> None:
    """`clean --images` empties our cache and removes our images from the engine; a second time there is nothing."""
    cleaned = coldstart("clean", LOCAL, "--images")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "removed engine image coldstart.local/hello:" in cleaned.stdout
    assert not [path for path in (coldstart.folder / "cache" / "coldstart").iterdir() if len(path.name) >= 64]
    assert ask("/images/json", reference=["coldstart.local/*"]) == []
    assert "nothing of ours was left" in coldstart("clean", LOCAL).stdout


def test_plan_and_dry_run_touch_nothing(coldstart: Coldstart) -> None:
    """No store, no lock, no cache: they only say what would be."""
    before = sorted(coldstart.folder.rglob("*"))
    assert coldstart("plan", LOCAL, "--seed", "7").stdout.count("\n") > 5
    dry = coldstart("sweep", LOCAL, "--dry-run", "--seed", "7", "--format", "json")
    planned = coldstart("plan", LOCAL, "--seed", "7", "--format", "json")
    assert dry.stdout == planned.stdout
    assert json.loads(dry.stdout)["seed"] == 7
    assert (dry.stderr, planned.stderr) == ("", "")
    assert sorted(coldstart.folder.rglob("*")) == before


def test_a_seed_gives_the_same_order_again(coldstart: Coldstart) -> None:
    """The boots themselves, by their instants, are in the order of the plan; and of any sweep with that seed."""
    playbook = coldstart.playbook(PROCESS + "\n" + PROCESS.replace("process:", "again:", 1), "boots: 4, gap: 0s")
    orders = []
    for _ in range(2):
        assert coldstart.sweep("--playbook", playbook, "--seed", "5").returncode == 0
        in_time = sorted(coldstart.records(), key=lambda record: record["achieved_ns"])
        orders.append([(record["trial"], record["index"]) for record in in_time])
    inventory = str(coldstart.folder / "inventory.yaml")
    planned = json.loads(coldstart("plan", inventory, "--playbook", playbook, "--seed", "5", "--format", "json").stdout)
    assert orders[0] == orders[1] == [tuple(pair) for pair in planned["orders"]["here"]]
    assert len(set(orders[0])) == 8


@pytest.mark.parametrize("format_", ["table", "csv"])
def test_stdout_is_the_result_only(coldstart: Coldstart, format_: str) -> None:
    """What is said on the way goes to stderr; there is nothing to draw where there is no terminal."""
    done = coldstart.sweep("--playbook", coldstart.playbook(PROCESS), "--format", format_)
    assert done.returncode == 0, done.stderr
    assert done.stdout == coldstart("show", "--format", format_).stdout
    said = [line for line in done.stderr.splitlines() if "removed what a dead run had left" not in line]
    assert [line.split()[0] for line in said] == ["run"]
    assert "\x1b" not in done.stdout + done.stderr


def test_more_failures_than_allowed(coldstart: Coldstart) -> None:
    """Failed boots are results, shown; how many are too many is the user's to say."""
    playbook = coldstart.playbook("process: {runtime: process, image: hello, env: {COLDSTART_FAULT: 'exit:3'}}")
    allowed = coldstart.sweep("--playbook", playbook, "--max-failures", "2")
    assert allowed.returncode == 0, allowed.stderr
    refused = coldstart.sweep("--playbook", playbook, "--max-failures", "1", "--format", "json")
    assert refused.returncode == 3
    assert "2 of 2 boots failed" in refused.stderr
    assert json.loads(refused.stdout)["cells"][0]["failed"] == 2
    assert {record["outcome"] for record in coldstart.records()} == {"error:exited"}
    assert "code 3" in coldstart.records()[0]["detail"]
