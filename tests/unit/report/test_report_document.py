"""The JSON object keeps its promised shape, says null for what is not known, and compares like with like."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from coldstart import report
from coldstart.model import Cell, Load, Run, Trial
from coldstart.report import document

SUMMARY = {"median", "mean", "sd", "p95", "min", "max", "ci95", "n", "censored"}


def test_the_keys_scripts_depend_on(built: dict[str, Any]) -> None:
    """Every key of the contract is there; more may come, none may go."""
    assert built.keys() >= {"run", "playbook", "cells", "comparisons", "warnings", "seed", "started", "state", "store"}
    for cell in built["cells"]:
        assert cell.keys() >= {
            "node",
            "site",
            "arch",
            "target",
            "runtime",
            "start",
            "load",
            "labels",
            "boots",
            "failed",
        }
        assert cell.keys() >= {
            "ready_seconds",
            "phases_seconds",
            "resolution_seconds",
            "reclaim_seconds",
            "stop_seconds",
        }
        assert cell.keys() >= {"image_bytes", "transfer_bytes", "memory_bytes", "cache_bytes", "skipped", "outcomes"}
        assert cell["ready_seconds"].keys() == SUMMARY
    for pair in built["comparisons"]:
        assert pair.keys() >= {"a", "b", "node", "start", "ratio", "ci95"}
        assert pair.keys() >= {"reduction_percent", "symmetric_percent", "p_value"}


def test_the_figures_of_a_cell(built: dict[str, Any]) -> None:
    """Seconds without the noise of floats, bytes as integers, phases without the marks that end a boot."""
    process = built["cells"][0]
    assert (process["boots"], process["failed"], process["outcomes"]) == (10, 0, {"ok": 10})
    assert process["ready_seconds"]["median"] == 0.00245
    assert process["ready_seconds"]["ci95"] == (0.0021, 0.0028)
    assert process["phases_seconds"].keys() == {"created", "api_return"}
    assert process["reclaim_seconds"]["median"] == 0.003
    assert process["stop_seconds"]["median"] == 0.001
    assert process["resolution_seconds"]["max"] == 0.00015
    assert process["memory_bytes"] == {"pss": 3 * 2**20 + 4, "cgroup_current": 5 * 2**20, "cgroup_peak": None}
    assert process["cache_bytes"] == {"files": 4096, "before": 4096, "start": 0}


def test_what_is_not_known_is_null(built: dict[str, Any]) -> None:
    """A censored mean, a cell that never ran: null, never zero."""
    unikernel, skipped = built["cells"][2:]
    assert (unikernel["ready_seconds"]["censored"], unikernel["ready_seconds"]["mean"]) == (1, None)
    assert unikernel["outcomes"] == {"ok": 10, "timeout": 1}
    assert skipped["skipped"] == "no image for aarch64"
    assert (skipped["ready_seconds"]["n"], skipped["ready_seconds"]["median"]) == (0, None)
    assert (skipped["memory_bytes"], skipped["reclaim_seconds"], skipped["phases_seconds"]) == (None, None, {})


def test_json_is_strict_and_whole(built: dict[str, Any]) -> None:
    """What is printed can be read back by any parser."""
    text = report.render(built, "json")
    read = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert read["cells"][0]["ready_seconds"]["ci95"] == [0.0021, 0.0028]
    assert read["started"] == "2026-11-22T18:45:30Z"
    assert text.endswith("}\n")


def test_targets_are_compared_within_a_node_and_start(run: Run, cells: list[Cell]) -> None:
    """Every pair once, against the one the playbook names first; never across nodes, starts or with what never ran."""
    vm = dataclasses.replace(cells[1], trial=Trial(7, "vm1", "cloud", "vm", "qemu", "warm", Load()))
    cold = dataclasses.replace(cells[1], trial=Trial(8, "vm1", "cloud", "vm", "qemu", "page-cold", Load()))
    built = document.build(run, [*cells, vm, cold])
    pairs = [(pair["a"], pair["b"], pair["node"], pair["start"]) for pair in built["comparisons"]]
    assert pairs == [
        ("container", "process", "vm1", "warm"),
        ("vm", "process", "vm1", "warm"),
        ("vm", "container", "vm1", "warm"),
    ]
    first = built["comparisons"][0]
    assert first["ratio"] == pytest.approx(30.45 / 2.45)
    assert (first["verdict"], first["n"]) == ("slower", [10, 10])
    assert first["p_adjusted"] == pytest.approx(3 * first["p_value"])


def test_each_node_is_a_question_of_its_own(run: Run, cells: list[Cell]) -> None:
    """Fifty more nodes do not make the same figures less sure."""
    alone = document.build(run, cells[:2])["comparisons"][0]
    others = [
        dataclasses.replace(cell, trial=dataclasses.replace(cell.trial, node=f"n{i}"))
        for i in range(5)
        for cell in cells[:2]
    ]
    assert document.build(run, [*cells[:2], *others])["comparisons"][0] == alone


def test_emulated_and_native_are_not_compared_in_silence(run: Run, cells: list[Cell]) -> None:
    """A difference in accel or probe stands beside the ratio; one in net does not, for kinds differ there by nature."""
    a = dataclasses.replace(cells[0], labels={"accel": "kvm", "net": "tap"})
    b = dataclasses.replace(cells[1], labels={"accel": "tcg", "net": "user"})
    assert document.build(run, [a, b])["comparisons"][0]["caveats"] == ["accel=tcg against accel=kvm"]


def test_a_comparison_without_samples(run: Run, cells: list[Cell]) -> None:
    """A target that always failed has no ratio, and does not count among the comparisons."""
    dead = dataclasses.replace(
        cells[1], boots=tuple(dataclasses.replace(boot, outcome="error:exited") for boot in cells[1].boots)
    )
    [pair] = document.build(run, [cells[0], dead])["comparisons"]
    assert (pair["ratio"], pair["p_value"], pair["p_adjusted"], pair["verdict"]) == (None, None, None, "undecided")


def test_warnings_are_objects_with_advice(built: dict[str, Any]) -> None:
    """Scripts can tell them apart by kind."""
    assert {"few", "failed", "emulated"} <= {warning["kind"] for warning in built["warnings"]}
    assert all(warning["text"] and warning["advice"] and warning["subject"] for warning in built["warnings"])


def test_a_run_that_is_not_over(run: Run) -> None:
    """It has a state and no end."""
    built = document.build(dataclasses.replace(run, state="running", finished_ns=None), [])
    assert (built["state"], built["finished"], built["cells"], built["comparisons"]) == ("running", None, [], [])


def test_an_unknown_format_is_a_bug(built: dict[str, Any]) -> None:
    """The command line offers FORMATS only; each of them gives text."""
    for format in report.FORMATS:
        assert report.render(built, format).endswith("\n")
    with pytest.raises(ValueError, match="no report format 'html'"):
        report.render(built, "html")
