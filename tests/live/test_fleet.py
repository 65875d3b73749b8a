"""Sweeps over the lab: nodes that start together, and everything that can happen to one while the others go on."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Coldstart, Sweep, poll
from lab.fleet import Lab
from lab.node import Node
from lab.shapes import NO_DOCKER, NO_PYTHON, Shape, plain
from test_faults import check_one_line

from coldstart.store import Store

pytestmark = pytest.mark.live

PROCESS = "process: {runtime: process, image: hello}"
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three plain nodes, for all tests here that leave them as they were."""
    with Lab(tmp_path_factory.mktemp("fleet") / "lab", plain(3)) as made:
        yield made


@pytest.fixture
def fleet(shared: Lab) -> Iterator[Lab]:
    """The same; nothing of ours may be left on any of them."""
    yield shared
    left = {}
    for node in shared.nodes.values():
        poll(lambda node=node: not node.leftovers(), 35)
        left[node.name] = node.leftovers()
    assert left == {name: [] for name in shared.nodes}


class Fleet:
    """The command line over a lab, with a playbook of bare processes."""

    def __init__(self, coldstart: Coldstart, lab: Lab, load: str = "boots: 60, gap: 40ms", more: str = "") -> None:
        self.coldstart = coldstart
        self.arguments = (str(lab.inventory), "--playbook", coldstart.playbook(PROCESS, load, more))

    def start(self, *more: str) -> Sweep:
        return self.coldstart.start(*self.arguments, *more)

    def boots(self) -> Counter[str]:
        """By node, of the latest run; each boot is there once, or the store would have refused it."""
        return Counter(record["node"] for record in self.coldstart.records())

    def document(self) -> dict[str, Any]:
        done = self.coldstart("show", "--format", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def under_way(sweep: Sweep, count: int = 9) -> None:
    """Every node has booted some."""
    sweep.stored(count)


def finished(fleet: Fleet, sweep: Sweep, code: int, *, limit_s: float = 90.0) -> dict[str, Any]:
    assert sweep.wait(limit_s) == code, sweep.stderr
    return fleet.document()


# -- together


def test_loops_start_together(coldstart: Coldstart, fleet: Lab):
    """One instant for all, achieved within the bound and a scheduler's whim; stored and shown."""
    sweeping = Fleet(coldstart, fleet, "boots: 5, gap: 5ms")
    document = finished(sweeping, sweeping.start(), 0)
    assert (document["sync"]["waves"], document["sync"]["nodes"]) == (1, 3)
    assert document["sync"]["skew_seconds"]["max"] < 0.1
    shown = coldstart("show").stdout
    assert "3 nodes, one instant: skew" in shown
    assert shown.count("clock known to") == 3


def test_waves_start_together(coldstart: Coldstart, fleet: Lab):
    """A barrier before every boot, the same target everywhere."""
    sweeping = Fleet(coldstart, fleet, "boots: 4, gap: 5ms", "start: [warm, page-cold]\nsync: wave")
    finished(sweeping, sweeping.start(), 0)
    with Store.open(coldstart.store, readonly=True) as store:
        run = store.find("latest").id
        starts = store.starts(run)
        cells = {boot.achieved_ns: cell.trial for cell, boot in store.boots(run)}
    assert Counter(start.wave for start in starts) == dict.fromkeys(range(8), 3)
    for wave in range(8):
        trials = {(t.target, t.start) for s in starts if s.wave == wave for t in [cells[s.achieved_ns]]}
        assert len(trials) == 1, f"wave {wave}"


def test_reports_are_by_site_and_node(coldstart: Coldstart, fleet: Lab):
    """Nodes of a site stand together, whatever the inventory's order."""
    sweeping = Fleet(coldstart, fleet, "boots: 2, gap: 5ms")
    finished(sweeping, sweeping.start(), 0)
    rows = [line.split()[0] for line in coldstart("show").stdout.splitlines() if "process" in line and "/n" in line]
    sites = [row.partition("/")[0] for row in rows]
    assert sorted(sites) == ["cloud", "edge", "edge"]
    assert sites != ["edge", "cloud", "edge"], "as in the inventory"


# -- one node's trouble


def the_link_is_cut_for_6_s(node: Node) -> None:
    node.cut()
    time.sleep(6)
    node.mend()


def its_sessions_are_killed(node: Node) -> None:
    assert node.kill_sshd_sessions()


def its_agents_are_killed(node: Node) -> None:
    for pid in agents(node):
        os.kill(pid, signal.SIGKILL)


def it_reboots(node: Node) -> None:
    node.reboot()


def agents(node: Node) -> list[int]:
    return [pid for pid in node.pids() if b"coldstart-agent" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


@pytest.mark.parametrize(
    "trouble", [the_link_is_cut_for_6_s, its_sessions_are_killed, its_agents_are_killed, it_reboots]
)
def test_back_within_reconnect(coldstart: Coldstart, fleet: Lab, trouble: Callable[[Node], None]):
    """Every boot of every node arrives once; the others never notice."""
    sweeping = Fleet(coldstart, fleet)
    sweep = sweeping.start()
    under_way(sweep)
    trouble(fleet.nodes["n2"])
    document = finished(sweeping, sweep, 0)
    assert sweeping.boots() == dict.fromkeys(NODES, 60)
    assert document["missing"] == []
    assert "n1: link lost" not in sweep.stderr
    assert "n3: link lost" not in sweep.stderr


def it_is_gone_for_good(node: Node) -> None:
    node.cut()


def its_server_hangs(node: Node) -> None:
    """Half open: the connection is there, and nobody behind it."""
    for pid in node.named("sshd"):
        os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("trouble", [it_is_gone_for_good, its_server_hangs])
def test_not_back_within_reconnect(coldstart: Coldstart, fleet: Lab, trouble: Callable[[Node], None]):
    """What is missing is said and kept; the others' boots are all there; --resume has the rest."""
    sweeping = Fleet(coldstart, fleet)
    sweep = sweeping.start("--reconnect", "4")
    under_way(sweep)
    node = fleet.nodes["n2"]
    try:
        trouble(node)
        document = finished(sweeping, sweep, 4)
        assert {name: count for name, count in sweeping.boots().items() if name != "n2"} == {"n1": 60, "n3": 60}
        (missing,) = document["missing"]
        assert (missing["node"], missing["missing"]) == ("n2", 60 - sweeping.boots()["n2"])
        assert 0 < missing["missing"] < 60
        assert "n2: " in coldstart("show").stdout.partition("Missing:")[2]
        poll(lambda: not node.leftovers(), 35)
    finally:
        for pid in node.named("sshd"):
            os.kill(pid, signal.SIGCONT)
        node.mend()
    resumed = sweeping.start("--resume", "latest")
    assert finished(sweeping, resumed, 0)["missing"] == []
    assert sweeping.boots() == dict.fromkeys(NODES, 60)


def test_an_unreachable_node(coldstart: Coldstart, fleet: Lab):
    """The others are measured; its boots are recorded as missing; 4."""
    sweeping = Fleet(coldstart, fleet, "boots: 3, gap: 5ms")
    fleet.nodes["n2"].stop_sshd()
    try:
        sweep = sweeping.start()
        document = finished(sweeping, sweep, 4)
    finally:
        fleet.nodes["n2"].start_sshd()
    assert "Connection refused" in sweep.stderr
    assert sweeping.boots() == {"n1": 3, "n3": 3}
    assert [(entry["node"], entry["missing"]) for entry in document["missing"]] == [("n2", 3)]


def test_two_controllers(coldstart: Coldstart, fleet: Lab):
    """The second is told which run it is; the first goes on."""
    sweeping = Fleet(coldstart, fleet)
    sweep = sweeping.start()
    under_way(sweep)
    second = coldstart.sweep(*sweeping.arguments)
    assert second.returncode == 4
    assert second.stderr.count(f"node busy: run {sweep.run}") >= 3
    refused = coldstart("clean", sweeping.arguments[0])
    check_one_line(refused, 4, f"node busy: run {sweep.run}")
    assert sweep.wait(60) == 0, sweep.stderr
    assert sweeping.boots() == dict.fromkeys(NODES, 60)


def test_the_controller_is_killed(coldstart: Coldstart, fleet: Lab):
    """Every node cleans up by itself, at once; another controller goes on with the run."""
    sweeping = Fleet(coldstart, fleet)
    sweep = sweeping.start()
    under_way(sweep)
    sweep.process.kill()
    sweep.wait()
    poll(lambda: not any(node.leftovers() for node in fleet.nodes.values()), 30)
    assert finished(sweeping, sweeping.start("--resume", "latest"), 0)["state"] == "finished"
    assert sweeping.boots() == dict.fromkeys(NODES, 60)


def test_interrupted(coldstart: Coldstart, fleet: Lab):
    """Ctrl-C: every node is clean when the command returns."""
    sweeping = Fleet(coldstart, fleet)
    sweep = sweeping.start()
    under_way(sweep)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait(40) == 130, sweep.stderr
    assert [thing for node in fleet.nodes.values() for thing in node.leftovers()] == []


def test_a_changed_host_key(coldstart: Coldstart, tmp_path: Path):
    """That node is refused, whatever was allowed; the others go on."""
    with Lab(tmp_path / "lab", plain(2)) as lab:
        lab.nodes["n2"].change_host_key()
        sweeping = Fleet(coldstart, lab, "boots: 2, gap: 5ms")
        sweep = sweeping.start("--accept-new-host-keys")
        finished(sweeping, sweep, 4)
        assert "CHANGED" in sweep.stderr
        assert sweeping.boots() == {"n1": 2}


def test_nodes_of_every_kind(coldstart: Coldstart, tmp_path: Path):
    """No Python, no engine, fish, a noisy start-up file, one session, behind a jump host, sudo with a password: each
    is measured or told what it lacks, and none keeps another from its boots."""
    pi = {"user": "pi", "sudo": "password"}
    shapes = (
        Shape("gate", "cloud"),
        Shape("inner", "edge", behind="gate"),
        Shape("bare", "cloud", without=NO_DOCKER),
        Shape("mute", "edge", without=NO_PYTHON),
        Shape("fishy", "laptop", login_shell="/usr/bin/fish"),
        Shape("noisy", "laptop", rc="echo welcome to noisy"),
        Shape("single", "edge", sshd=("MaxSessions 1", "AllowTcpForwarding no")),
        Shape("locked", "edge", **pi),
    )
    with Lab(tmp_path / "lab", shapes) as lab:
        text = lab.inventory.read_text().replace(
            "        locked:\n", "        locked:\n          ansible_become: true\n"
        )
        inventory = coldstart.write("fleet.yaml", text)
        playbook = coldstart.playbook(f"{PROCESS}\ncontainer: {{runtime: docker, image: hello}}", "boots: 2, gap: 5ms")
        done = coldstart.sweep(inventory, "--playbook", playbook, "--limit", "!fishy")
        assert done.returncode == 4, done.stderr
        counts = Counter((r["node"], r["target"]) for r in coldstart.records())
        for node in ("gate", "inner", "bare", "single"):
            assert counts[(node, "process")] == 2, (node, done.stderr)
        for words in ("mute: no Python there", "welcome to noisy", "locked: sudo asks for a password"):
            assert words in done.stderr
        assert "bare: container warm skipped: no Docker engine" in done.stderr
        fishy = coldstart.sweep(inventory, "--playbook", playbook, "--limit", "fishy", "--target", "process")
        assert fishy.returncode == 0, fishy.stderr
        assert [thing for node in lab.nodes.values() for thing in node.leftovers()] == []


def test_an_engine_is_restarted(coldstart: Coldstart, tmp_path: Path):
    """The boot it hits is a failure with a reason, the next ones go on; the other node never notices."""
    shapes = (Shape("one", "cloud", engine=True), Shape("two", "edge", engine=True))
    with Lab(tmp_path / "lab", shapes) as lab:
        playbook = coldstart.playbook("container: {runtime: docker, image: hello}", "boots: 20, gap: 300ms")
        sweep = coldstart.start(str(lab.inventory), "--playbook", playbook, "--max-failures", "20")
        under_way(sweep, 4)
        lab.nodes["two"].restart_engine()
        assert sweep.wait(120) == 0, sweep.stderr
        outcomes = Counter((record["node"], record["outcome"] == "ok") for record in coldstart.records())
        assert outcomes[("one", True)] == 20
        assert sum(count for (node, _), count in outcomes.items() if node == "two") == 20
        last = max(record["index"] for record in coldstart.records() if record["node"] == "two")
        assert [r["outcome"] for r in coldstart.records() if (r["node"], r["index"]) == ("two", last)] == ["ok"]
        assert [thing for node in lab.nodes.values() for thing in node.leftovers()] == []


def instances(node: Node) -> list[str]:
    return [thing for thing in node.leftovers() if thing.startswith("process")]


def test_clean_removes_what_nobody_could(coldstart: Coldstart, fleet: Lab):
    """Controller and both agents of a node killed at once: its instance lives on, until `clean` or `check` comes."""
    sweeping = Fleet(coldstart, fleet, "boots: 2, gap: 5ms, hold: 60s")
    sweep = sweeping.start()
    node = fleet.nodes["n2"]
    poll(lambda: instances(node))
    sweep.process.kill()
    its_agents_are_killed(node)
    sweep.wait()
    poll(lambda: not fleet.nodes["n1"].leftovers() and not fleet.nodes["n3"].leftovers(), 35)
    assert instances(node)
    cleaned = coldstart("clean", str(fleet.inventory))
    assert cleaned.returncode == 0, cleaned.stderr
    assert re.search(r"^n2: removed process \d+", cleaned.stdout, re.MULTILINE), cleaned.stdout
    assert "n1: nothing of ours was left" in cleaned.stdout


def test_check_of_a_fleet(coldstart: Coldstart, fleet: Lab):
    """A line for every node with its fingerprint, the unreachable one too; 4 because of it."""
    fleet.nodes["n3"].stop_sshd()
    try:
        done = coldstart("check", str(fleet.inventory), "--format", "json")
    finally:
        fleet.nodes["n3"].start_sshd()
    assert done.returncode == 4, done.stderr
    found = {entry["node"]: entry for entry in json.loads(done.stdout)["nodes"]}
    assert [found[name]["reachable"] for name in NODES] == [True, True, False]
    assert found["n1"]["host_key"].startswith("ssh-ed25519 SHA256:")
    assert {"docker-engine", "clock-unsynchronised"} & {finding["kind"] for finding in found["n1"]["findings"]}
    assert [finding["kind"] for finding in found["n3"]["findings"]] == ["unreachable"]
