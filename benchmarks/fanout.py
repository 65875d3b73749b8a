"""What one more node costs the controller: `echo ok` once on each of n nodes, by coldstart's connections and by peers.

The nodes, the clients and how one is measured: `loopback.py`. In every turn each client runs once for every number of
nodes, in an order that rotates from turn to turn. CPU is in seconds beyond start-up; the marginal cost of a node is
the difference of two numbers of nodes in one turn, divided.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import loopback, result
from benchmarks.booting import Cancel, Failed
from benchmarks.loopback import Cost, Site
from benchmarks.result import NotRun, Row
from coldstart import stats

DEFAULT_N = 6  # the fewest from which a ratio has an interval
LIMIT_S = 240.0  # one client, once
GRACE_S = 5.0
FEW, MANY = 10, 200  # the marginal cost is taken between them
MARGINAL_RATIO, MARGINAL_BYTES = 0.45, 100_000
GOALS = {"fabric": 0.5, "fabric-tuned": 0.5, "parallel-ssh": 1.5, "ansible": 0.12}  # CPU at GOAL_COUNT, ours by theirs
GOAL_COUNT = 50
MISSING = "{} is not installed (make bench does it)"


@dataclass(frozen=True)
class Job:
    """So many nodes, each of which takes so long to answer; by whom."""

    count: int
    delay_s: int
    clients: tuple[str, ...]

    def words(self) -> str:
        slow = f", each takes {self.delay_s} s" if self.delay_s else ""
        return f"fan-out to {self.count}{slow}"


FABRICS = ("fabric", "fabric-tuned")
ALL = ("ours", "agents", *FABRICS, "parallel-ssh", "ansible", "openssh")
JOBS = (
    Job(1, 0, ALL),
    Job(FEW, 0, ALL),
    Job(GOAL_COUNT, 0, ALL),
    Job(GOAL_COUNT, 1, ("ours", *FABRICS, "parallel-ssh", "ansible")),
    Job(MANY, 0, ("ours", *FABRICS, "parallel-ssh", "openssh")),
)


@dataclass
class Tally:
    """What was measured: of each job, of each client, one cost a turn. broken: clients that cannot, and why."""

    costs: dict[Job, dict[str, list[Cost]]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def of(self, job: Job, client: str) -> list[Cost]:
        return self.costs.setdefault(job, {}).setdefault(client, [])


def run(n: int, cancel: Cancel) -> list[Row]:
    tally = Tally(broken=_absent())
    try:
        with loopback.served() as site:
            _measure(n, site, cancel, tally)
    except (FileNotFoundError, ChildProcessError) as error:
        raise NotRun(str(error)) from None
    rows = [row for job in JOBS for row in _rows(job, tally)]
    return [
        *rows,
        *_marginal(tally),
        *(result.not_run(f"fan-out, {who}", NotRun(why)) for who, why in tally.broken.items()),
    ]


def _absent() -> dict[str, str]:
    """Peers that are not here."""
    modules = {**dict.fromkeys(FABRICS, "fabric"), "parallel-ssh": "pssh"}
    missing = [client for client, module in modules.items() if importlib.util.find_spec(module) is None]
    try:
        loopback.ansible()
    except FileNotFoundError:
        missing.append("ansible")
    if not (shutil.which("ssh") and shutil.which("xargs")):
        missing.append("openssh")
    return {client: MISSING.format(client) for client in missing}


def _measure(n: int, site: Site, cancel: Cancel, tally: Tally) -> None:
    for client in ALL:  # bytecode and page cache
        _try(client, Job(1, 0, ALL), site, cancel, tally)
    for costs in tally.costs.values():
        costs.clear()
    for turn in range(n):
        for job in JOBS:
            for client in rotated(job.clients, turn):
                _try(client, job, site, cancel, tally)


def rotated(clients: Sequence[str], turn: int) -> list[str]:
    """Everybody begins once, then it starts over."""
    first = turn % len(clients)
    return [*clients[first:], *clients[:first]]


def _try(client: str, job: Job, site: Site, cancel: Cancel, tally: Tally) -> None:
    """A peer that fails is left out from then on; we may not."""
    if client in tally.broken:
        return
    try:
        tally.of(job, client).append(_cost(client, job, site, cancel))
    except Failed as error:
        if client in ("ours", "agents"):
            raise
        tally.broken[client] = str(error)


def _cost(client: str, job: Job, site: Site, cancel: Cancel) -> Cost:
    """In a process, and a session, of its own."""
    told = [client, str(job.count), str(job.delay_s), json.dumps(asdict(site))]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loopback", *told],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = _waited(process, cancel)
    finally:
        _end(process)
    if process.returncode:
        last = errors.strip().splitlines()[-1:] or [f"exit {process.returncode}"]
        raise Failed(f"{client}, {job.count} nodes: {last[0][-200:]}")
    return Cost(**json.loads(output))


def _waited(process: subprocess.Popen[str], cancel: Cancel) -> tuple[str, str]:
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            cancel.check()
    raise Failed(f"no end within {LIMIT_S:g} s")


def _end(process: subprocess.Popen[str]) -> None:
    """It and what it started, in order if they listen."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue


# --- what is made of it ---


def _rows(job: Job, tally: Tally) -> list[Row]:
    """Us beside each peer; and what the agent adds to us."""
    peers = [client for client in job.clients if client not in ("ours", "agents", *tally.broken)]
    rows = [_row(job, "ours", peer, tally) for peer in peers]
    if "agents" in job.clients:
        rows.append(_row(job, "agents", "ours", tally))
    return rows


def _row(job: Job, who: str, peer: str, tally: Tally) -> Row:
    ours, peers = tally.of(job, who), tally.of(job, peer)
    ours_s, peers_s = ([cost.cpu_s for cost in side] for side in (ours, peers))
    goal = GOALS.get(peer) if job.count == GOAL_COUNT else None
    what = f"{job.words()}: {'agent sent and heard' if who == 'agents' else 'controller CPU'}"
    return Row(
        what=what,
        peer="the raw command, ours" if peer == "ours" else named(peer),
        n=len(ours),
        ours=text(ours, in_process=True),
        peers=text(peers, in_process=peer not in ("ansible", "openssh")),
        figure=result.ratio(ours_s, peers_s),
        goal=f"<= {goal:g}x" if goal else "",
        met=within(ours_s, peers_s, goal),
        samples=_samples(ours, peers),
    )


def _marginal(tally: Tally) -> list[Row]:
    """One more node, between FEW and MANY, beside fabric."""
    return [row for peer in FABRICS if peer not in tally.broken for row in _marginal_rows(peer, tally)]


def _marginal_rows(peer: str, tally: Tally) -> list[Row]:
    few, many = (next(job for job in JOBS if (job.count, job.delay_s) == (count, 0)) for count in (FEW, MANY))
    costs = [(tally.of(few, who), tally.of(many, who)) for who in ("ours", peer)]
    ours_s, peers_s = (per_node(*pair, lambda cost: cost.cpu_s) for pair in costs)
    ours_bytes, peers_bytes = (per_node(*pair, lambda cost: cost.rss_bytes) for pair in costs)
    what = f"one more node, {FEW} -> {MANY}"
    return [
        Row(
            what=f"{what}: controller CPU",
            peer=named(peer),
            n=len(ours_s),
            ours=f"{_median(ours_s) * 1e3:.2f} ms",
            peers=f"{_median(peers_s) * 1e3:.2f} ms",
            figure=result.ratio(ours_s, peers_s),
            goal=f"<= {MARGINAL_RATIO}x",
            met=within(ours_s, peers_s, MARGINAL_RATIO),
            samples={"ours_s": ours_s, "peer_s": peers_s},
        ),
        Row(
            what=f"{what}: resident memory",
            peer=named(peer),
            n=len(ours_bytes),
            ours=f"{_median(ours_bytes) / 1e3:.1f} KB",
            peers=f"{_median(peers_bytes) / 1e3:.1f} KB",
            figure=result.ratio(ours_bytes, peers_bytes),
            goal=f"<= {MARGINAL_BYTES / 1e3:g} KB",
            met=_median(ours_bytes) <= MARGINAL_BYTES,
            samples={"ours_bytes": ours_bytes, "peer_bytes": peers_bytes},
        ),
    ]


def per_node(few: Sequence[Cost], many: Sequence[Cost], of: Callable[[Cost], float]) -> list[float]:
    """Turn by turn."""
    return [(of(more) - of(less)) / (MANY - FEW) for less, more in zip(few, many, strict=True)]


def within(ours: Sequence[float], peers: Sequence[float], goal: float | None) -> bool | None:
    """Whether the ratio of the medians is; None without a goal."""
    return None if goal is None else _median(ours) <= goal * _median(peers)


def text(costs: Sequence[Cost], *, in_process: bool) -> str:
    """Medians. in_process: the client is one process, so that its memory can be told."""
    cpu_s, wall_s = (_median([getattr(cost, name) for cost in costs]) for name in ("cpu_s", "wall_s"))
    memory = f", {_median([cost.rss_bytes for cost in costs]) / 1e6:.0f} MB" if in_process else ""
    return f"{cpu_s * 1e3:.1f} ms CPU ({wall_s:.2f} s{memory})"


def named(client: str) -> str:
    """With its version and what is to be known of it."""
    if client == "openssh":
        return f"ssh by xargs -P{loopback.AT_ONCE}, {loopback.KEX}"
    package, note = {
        "fabric": ("fabric", "as documented"),
        "fabric-tuned": ("fabric", "keys parsed once"),
        "parallel-ssh": ("parallel-ssh", "verifies no host keys"),
        "ansible": ("ansible-core", f"raw, {loopback.FORKS} forks"),
    }[client]
    return f"{package} {_version(package)}".strip() + f", {note}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""  # the system's own command


def _samples(ours: Sequence[Cost], peers: Sequence[Cost]) -> dict[str, Any]:
    names = ("cpu_s", "wall_s", "rss_bytes")
    sides = {"ours": ours, "peer": peers}
    return {
        f"{side}_{name}": [getattr(cost, name) for cost in costs] for side, costs in sides.items() for name in names
    }


def _median(values: Sequence[float]) -> float:
    return stats.quantile(values, 0.5) or 0.0
