"""A small run that has everything a report must show: two nodes, a ratio, a timeout, a trial that was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from coldstart.model import Boot, Cell, Load, Run, Trial
from coldstart.report import document

MS = 1_000_000
RUN = Run("20261122-184530-3fa9", "quick", 7, 1_795_373_130 * 10**9, 1_795_373_190 * 10**9, "finished", "0.1.0", 31, 1)


def a_boot(trial: int, index: int, ready_ms: float) -> Boot:
    at = int((ready_ms + index / 10) * MS)
    marks = {
        "created": MS,
        "api_return": at // 2,
        "ready": at,
        "stop": at + MS,
        "gone": at + 2 * MS,
        "reclaimed": at + 4 * MS,
    }
    memory = {"pss": 3 * 2**20 + index, "cgroup_current": 5 * 2**20}
    return Boot(trial, index, "ok", "", marks, 150_000, 5, 9, memory, {"files": 4096, "before": 4096, "start": 0})


def a_cell(trial: Trial, ready_ms: float, labels: Mapping[str, str]) -> Cell:
    boots = tuple(a_boot(trial.id, index, ready_ms) for index in range(10))
    return Cell(trial, "x86_64", labels, image_bytes=1_200_000, transfer_bytes=0, boots=boots)


@pytest.fixture
def run() -> Run:
    return RUN


@pytest.fixture
def cells() -> list[Cell]:
    load = Load(boots=10)
    process = a_cell(Trial(0, "vm1", "cloud", "process", "process", "warm", load), 2.0, {"net": "host"})
    container = a_cell(Trial(1, "vm1", "cloud", "container", "docker", "warm", load), 30.0, {"net": "bridge"})
    lost = Boot(2, 10, "timeout", "no answer <b>within</b> 20 s", {"created": MS}, flags=("disturbed:steal",))
    unikernel = a_cell(
        Trial(2, "pi01", "edge", "unikernel", "qemu", "warm", load), 12.0, {"accel": "tcg", "net": "tap"}
    )
    unikernel = Cell(unikernel.trial, "aarch64", unikernel.labels, 10_000, 10_000, boots=(*unikernel.boots, lost))
    skipped = Cell(Trial(3, "pi01", "edge", "nanos", "qemu", "warm", load), skipped="no image for aarch64")
    return [process, container, unikernel, skipped]


@pytest.fixture
def built(run: Run, cells: list[Cell]) -> dict[str, Any]:
    return document.build(run, cells, store="/var/lib/coldstart.db")
