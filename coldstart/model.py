"""The nouns of a sweep: where (Node), what (Target, Load, Playbook), and every boot of it as data (Trial, Plan).

Frozen, and free of I/O. `Ready`, `Order` and `Boot` are defined in `agent/records.py`, because they travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coldstart.agent.records import Boot, Image, Order, Ready

__all__ = ["Boot", "Cell", "Image", "Load", "Node", "Order", "Plan", "Playbook", "Ready", "Run", "Target", "Trial"]


@dataclass(frozen=True)
class Node:
    """A host under test. groups: all it is in, outermost first; vars: merged, `coldstart_*` and `ansible_*` alike."""

    name: str
    site: str = "local"
    groups: tuple[str, ...] = ()
    vars: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""  # file:line of its definition, for messages


@dataclass(frozen=True)
class Target:
    """A named (runtime, image, options) that a playbook compares.

    image: a built-in name, a path, an engine's tag, or a mapping from architecture to one of these.
    base: the folder relative image paths start from. options: fields of the runtime's `Options`, validated.
    """

    name: str
    runtime: str
    image: str | Mapping[str, str]
    ready: Ready
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = "."
    where: str = ""


@dataclass(frozen=True)
class Load:
    """How boots follow each other. shape: `sequential` (one instance at a time)."""

    shape: str = "sequential"
    boots: int = 20
    gap_ns: int = 100_000_000
    hold_ns: int = 0


@dataclass(frozen=True)
class Playbook:
    """WHAT to measure. text: the file as it was, kept with the run. order: `interleaved` or `blocked`."""

    name: str
    targets: tuple[Target, ...]
    starts: tuple[str, ...]
    load: Load
    order: str = "interleaved"
    sync: str = "loop"
    text: str = ""


@dataclass(frozen=True)
class Trial:
    """node x target x start kind x load. id: its number within the plan, from 0."""

    id: int
    node: str
    site: str
    target: str
    runtime: str
    start: str
    load: Load


@dataclass(frozen=True)
class Plan:
    """All trials, and for every node its boots in the order they will run. seed makes that order again."""

    seed: int
    trials: tuple[Trial, ...]
    orders: Mapping[str, tuple[Order, ...]]  # by node


@dataclass(frozen=True)
class Run:
    """One sweep. state: `running`, `finished`, `failed` or `interrupted`; times in ns since the epoch, UTC."""

    id: str
    playbook: str
    seed: int
    started_ns: int
    finished_ns: int | None = None
    state: str = "running"
    version: str = ""
    boots: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Cell:
    """What one statistic is about: a trial, what its node said of it, and every boot of it.

    labels: what changes the figure (`net`, `probe`, `accel`, ...). image_bytes: unpacked, on the node's disk.
    transfer_bytes: what the controller had to send for it. skipped: why it was not run, empty if it was.
    """

    trial: Trial
    arch: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    image_bytes: int | None = None
    transfer_bytes: int | None = None
    skipped: str = ""
    boots: tuple[Boot, ...] = ()
