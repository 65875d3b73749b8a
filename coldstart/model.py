"""The nouns of a sweep: where (Node), what (Target, Load, Playbook), and every boot of it as data (Trial, Plan).

Frozen, and free of I/O. `Ready`, `Order` and `Boot` are defined in `agent/records.py`, because they travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coldstart.agent.records import Boot, Image, Order, Ready

__all__ = [
    "Boot",
    "Boots",
    "Cell",
    "Checked",
    "Finding",
    "Group",
    "Image",
    "Load",
    "Node",
    "Order",
    "Plan",
    "Playbook",
    "Prepared",
    "Push",
    "Ready",
    "Run",
    "Target",
    "TaskReport",
    "Trial",
    "WaveStart",
]


EMULATED = "tcg"  # the label `accel` of a machine whose processor is software


@dataclass(frozen=True)
class Node:
    """A host under test. groups: all it is in, outermost first; vars: merged, as the inventory has them.

    settings: those variables that mean something here, typed, each under its first name, if set (`variables.settings`).
    """

    name: str
    site: str = "local"
    groups: tuple[str, ...] = ()
    vars: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""  # file:line of its definition, for messages
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Nodes under one name. hosts: those named in it, not in its children; both in the order they are written."""

    name: str
    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A named (runtime, image, options) that a playbook compares.

    images: by the node's architecture (empty: any), each a built-in name, a path, an engine's tag, or the parts of a
    machine's image. base: the folder relative image paths start from. options: fields of the runtime's `Options`,
    validated. boots, boots_emulated: in place of the load's, the latter where the CPU is emulated; None: the load's.
    update_from: as images; the version that a node has before an `image-absent` start, empty: none.
    """

    name: str
    runtime: str
    images: Mapping[str, str | Mapping[str, str]]
    ready: Ready
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = "."
    where: str = ""
    boots: int | None = None
    boots_emulated: int | None = None
    update_from: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)

    def boots_with(self, labels: Mapping[str, str]) -> int | None:
        """How many boots it is to have, once it is known how it runs; None: as planned."""
        return self.boots_emulated if labels.get("accel") == EMULATED else None

    def image_for(self, arch: str) -> str | Mapping[str, str] | None:
        """The image for a node of this architecture, if there is one."""
        return self.images.get(arch, self.images.get(""))


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


Boots = tuple[str, str, int]  # target, start, index: what several nodes may boot together


@dataclass(frozen=True)
class Plan:
    """All trials, and for every node its boots in the order they will run. seed makes that order again."""

    seed: int
    trials: tuple[Trial, ...]
    orders: Mapping[str, tuple[Order, ...]]  # by node
    waves: tuple[Boots, ...] = ()  # what all nodes that have it boot at one instant; empty: only the loops' starts are


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
class WaveStart:
    """How a node began a wave. planned, achieved: on its own monotonic clock; offset_ns: that clock minus the
    controller's, known within bound_ns from a ping that took rtt_ns."""

    wave: int
    node: str
    planned_ns: int
    achieved_ns: int
    offset_ns: int
    bound_ns: int
    rtt_ns: int


@dataclass(frozen=True)
class Push:
    """An image came to a node, or was there. how: `present`; its engine `pulled` it, or `loaded` an archive; its agent
    `fetched` the files, or they were `sent` over the link. transfer_bytes: all that was sent for it, before encryption;
    duration_ns: until the node had it, verified."""

    node: str
    target: str
    image: str
    how: str
    transfer_bytes: int
    duration_ns: int


@dataclass(frozen=True)
class Finding:
    """Something about a node that stands in the way. kind: a word for scripts; severity: `problem` or `note`; remedy:
    the next step."""

    kind: str
    severity: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Checked:
    """What `check` found on a node. host_key: with its fingerprint, empty for this machine; facts: as texts;
    offset_ns: its monotonic clock minus ours, known within bound_ns from a ping that took rtt_ns."""

    node: str
    site: str
    reachable: bool
    host_key: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    offset_ns: int = 0
    bound_ns: int = 0
    rtt_ns: int = 0


@dataclass(frozen=True)
class TaskReport:
    """One task of `prepare` on a node. state: `ok`, `would-change`, `changed`, `failed`, `not-applicable`; steps: what
    would be done, or was, in words with the command; note: why, or what is left to do by hand."""

    task: str
    state: str
    steps: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found or did on a node. error: why nothing could be, or ''."""

    node: str
    site: str
    distribution: str = ""
    tasks: tuple[TaskReport, ...] = ()
    error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.error) or any(task.state == "failed" for task in self.tasks)

    @property
    def why(self) -> str:
        """It failed."""
        return self.error or "; ".join(f"{task.task}: {task.note}" for task in self.tasks if task.state == "failed")


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
