"""Everything that can go wrong on one machine: it is said in one line, the exit code fits, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Coldstart, Machine, Sweep, leftovers, poll

pytestmark = pytest.mark.live

PROCESS = "process: {runtime: process, image: hello}"
CONTAINER = "container: {runtime: docker, image: hello}"
BOTH = PROCESS + "\n" + CONTAINER
FOREVER = "boots: 500, gap: 20ms"
Instant = Callable[[Sweep], object]


def during_preparation(sweep: Sweep) -> None:
    """Both agents are there, nothing is booted yet."""
    sweep.agents()


def during_a_docker_start(sweep: Sweep) -> None:
    """The engine has made a container and has not started it yet."""
    sweep.starting()


def between_boots(sweep: Sweep) -> None:
    """Some boots are stored; then a seeded while."""
    sweep.stored(3)
    time.sleep(random.Random(2017).uniform(0, 0.2))


INSTANTS: list[Instant] = [during_preparation, during_a_docker_start, between_boots]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for_end(*pids: int) -> None:
    poll(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def check_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code, and a last line on stderr that has all the words."""
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


# -- told to end


@pytest.mark.parametrize("instant", INSTANTS)
def test_interrupted_once(coldstart: Coldstart, engine: str, instant: Instant) -> None:
    """Ctrl-C ends the sweep in order, whatever is under way, within 10 s; what was stored stays, and can go on."""
    sweep = coldstart.start("--playbook", coldstart.playbook(BOTH, FOREVER))
    instant(sweep)
    begin = time.monotonic()
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    assert time.monotonic() - begin < 10
    assert not coldstart.leftovers()
    # A run that had not reached its node yet leaves no trace in the store.
    assert (f"go on with --resume {sweep.run}" in sweep.stderr) == (sweep.run in coldstart.runs())
    assert "Traceback" not in sweep.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_it(coldstart: Coldstart, number: signal.Signals) -> None:
    """Likewise, each with its own exit code."""
    sweep = coldstart.start("--playbook", coldstart.playbook(PROCESS, FOREVER))
    sweep.stored()
    sweep.process.send_signal(number)
    assert sweep.wait() == 128 + number
    assert not coldstart.leftovers()


def test_interrupted_twice(coldstart: Coldstart, engine: str) -> None:
    """The second Ctrl-C is not waited for; the node is clean all the same, within 30 s."""
    sweep = coldstart.start("--playbook", coldstart.playbook(CONTAINER, FOREVER))
    sweep.stored()
    sweep.starting()
    sweep.process.send_signal(signal.SIGINT)
    poll(lambda: "ending in order" in sweep.stderr)
    begin = time.monotonic()
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    assert time.monotonic() - begin < 2
    poll(lambda: not coldstart.leftovers(), 30)
    assert coldstart.boots()


def test_resumed(coldstart: Coldstart) -> None:
    """A run that was cut short goes on: every boot is there exactly once, none of the first part is done again."""
    playbook = coldstart.playbook(PROCESS + "\n" + PROCESS.replace("process:", "again:", 1), "boots: 8, gap: 50ms")
    sweep = coldstart.start("--playbook", playbook)
    sweep.stored(3)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    before = coldstart.boots()
    assert 3 <= len(before) < 16
    done = coldstart.sweep("--playbook", playbook, "--resume", sweep.run[:12], "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == sweep.run
    assert Counter(coldstart.boots()) == Counter((f"{t} warm", i) for t in ("process", "again") for i in range(8))
    assert len(coldstart.runs()) == 1
    check_one_line(coldstart.sweep("--playbook", playbook, "--resume", "latest", "--boots", "9"), 2, "another sweep")


# -- killed


@pytest.mark.parametrize(
    ("victims", "instants"),
    [(("measurer",), INSTANTS[1:]), (("watchdog",), INSTANTS[1:]), (("watchdog", "measurer"), INSTANTS)],
    ids=["measurer", "watchdog", "both"],
)
def test_agents_killed(coldstart: Coldstart, engine: str, victims: tuple[str, ...], instants: list[Instant]) -> None:
    """kill -9 while it prepares, while the engine starts a container, and between boots: each time the sweep goes on
    over a new link, by itself, and in the end every boot is there exactly once."""
    # Many: process 1 may take its time to reap what was killed, and the sweep goes on meanwhile.
    sweep = coldstart.start("--playbook", coldstart.playbook(BOTH, "boots: 25, gap: 20ms"))
    for instant in instants:
        instant(sweep)
        agents = sweep.agents()
        for victim in victims:
            kill(agents[victim])
        wait_for_end(*agents.values())
    assert sweep.wait() == 0, sweep.stderr
    assert sweep.stderr.count("trying again") == len(instants)
    assert Counter(coldstart.boots()) == Counter((f"{t} warm", i) for t in ("process", "container") for i in range(25))
    assert not coldstart.leftovers()


@pytest.mark.parametrize("instant", INSTANTS[1:])
def test_controller_killed(coldstart: Coldstart, engine: str, instant: Instant) -> None:
    """kill -9: the watchdog cleans the node up within 30 s, and what was measured is in the store."""
    sweep = coldstart.start("--playbook", coldstart.playbook(BOTH, FOREVER))
    run = sweep.run
    instant(sweep)
    before = coldstart.boots(run)
    kill(sweep.process.pid)
    sweep.wait()
    poll(lambda: not coldstart.leftovers(), 30)
    assert Counter(coldstart.boots(run)) >= Counter(before)


@pytest.mark.parametrize("target", [PROCESS, CONTAINER], ids=["process", "container"])
def test_all_killed_at_once(coldstart: Coldstart, node: Machine, engine: str, target: str) -> None:
    """Then nobody is left to clean up: the next sweep of this machine does, and says so."""
    sweep = coldstart.start("--playbook", coldstart.playbook(target, "boots: 5, gap: 0s, hold: 60s"))
    sweep.instance()
    agents = sweep.agents()
    pids = (sweep.process.pid, agents["watchdog"], agents["measurer"])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # or the last one alive would have time to clean up
    for pid in pids:
        kill(pid)
    sweep.wait()
    wait_for_end(*agents.values())
    left = {thing.split()[0] for thing in leftovers(sweep.run)}
    assert left >= ({"process"} if target == PROCESS else {"container", "network", "interface"})
    done = sweep_with_the_machines_lock(coldstart, node, "--playbook", coldstart.playbook(PROCESS))
    assert "removed what a dead run had left: " in done.stderr
    assert target == PROCESS or f"network coldstart-{sweep.run}" in done.stderr
    assert not coldstart.leftovers()


def sweep_with_the_machines_lock(
    coldstart: Coldstart, node: Machine, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """As users do: it alone can know that other runs are dead. Again while somebody else's sweep is faster."""
    own = coldstart.environ.pop("COLDSTART_LOCK")
    node.release()
    done = poll(lambda: (done := coldstart.sweep(*arguments)).returncode != 4 and done, 120)
    coldstart.environ["COLDSTART_LOCK"] = own
    assert done.returncode == 0, done.stderr
    return done  # type: ignore[no-any-return]


# -- somebody else


def test_node_busy(coldstart: Coldstart, node: Machine) -> None:
    """One run at a time: a sweep and a clean-up both wait for nobody, and say whose run it is."""
    machine = coldstart.environ.pop("COLDSTART_LOCK")  # what every other sweep of this machine uses: held by this test
    done = coldstart.sweep("--playbook", coldstart.playbook(PROCESS))
    check_one_line(done, 4, "here: node busy: run " + node.run)
    check_one_line(coldstart("clean", str(coldstart.folder / "inventory.yaml")), 4, "node busy: run " + node.run)
    coldstart.environ["COLDSTART_LOCK"] = machine
    sweep = coldstart.start("--playbook", coldstart.playbook(PROCESS, FOREVER))
    sweep.stored()
    check_one_line(coldstart.sweep("--playbook", coldstart.playbook(PROCESS)), 4, "node busy: run " + sweep.run)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130, sweep.stderr


@pytest.fixture
def listener() -> Iterator[int]:
    """Somebody else's server; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_port_in_use(coldstart: Coldstart, listener: int) -> None:
    """A program that cannot be told its port is not started where that port is taken: its owner would answer."""
    program = Path(coldstart.write("server.sh", "#!/bin/sh\nexec sleep 60\n"))
    program.chmod(0o755)
    ready = f"ready: {{tcp: {{port: {listener}}}, timeout: 5s}}"
    playbook = coldstart.playbook(f"mine: {{runtime: process, image: ./server.sh, {ready}}}")
    check_one_line(coldstart.sweep("--playbook", playbook), 3, "2 of 2 boots failed")
    for record in coldstart.records():
        assert record["outcome"] == "error:place"
        assert f"port {listener} of 127.0.0.1 is in use" in record["detail"]


@pytest.mark.parametrize("docker_host", ["unix:///nonexistent", "tcp://127.0.0.1:2375"])
def test_no_engine(coldstart: Coldstart, docker_host: str) -> None:
    """What cannot be measured is skipped, with the reason and what to do; the rest is measured, and that is fine."""
    variables = f"{{ansible_connection: local, coldstart_docker_host: '{docker_host}'}}"
    inventory = coldstart.write("other.yaml", f"all: {{hosts: {{here: {variables}}}}}\n")
    done = coldstart.sweep(inventory, "--playbook", coldstart.playbook(BOTH), "--format", "json")
    assert done.returncode == 0, done.stderr
    cells = {cell["target"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert docker_host.removeprefix("unix://") in cells["container"]["skipped"]
    assert "correct" in cells["container"]["skipped"]
    assert cells["container"]["skipped"] in done.stderr
    assert (cells["container"]["boots"], cells["process"]["boots"]) == (0, 2)
    only = coldstart.sweep(inventory, "--playbook", coldstart.playbook(CONTAINER))
    check_one_line(only, 4, "nothing was measured")


# -- workloads that misbehave


def fault_of(fault: str) -> str:
    return f"env: {{COLDSTART_FAULT: '{fault}'}}"


def test_workloads_that_misbehave(coldstart: Coldstart, engine: str) -> None:
    """Silent, deaf, dead, lying: each boot is a row with its reason, and the sweep goes on."""
    faults = {"mute": "mute", "deaf": "deaf", "dead": "exit:3", "stale": "stale"}
    targets = [f"{name}-process: {{runtime: process, image: hello, {fault_of(faults[name])}}}" for name in faults]
    targets += [
        f"{name}-docker: {{runtime: docker, image: hello, {fault_of(faults[name])}}}" for name in ("mute", "dead")
    ]
    playbook = coldstart.playbook("\n".join([*targets, PROCESS]), "boots: 1, gap: 0s", timeout="800ms")
    check_one_line(coldstart.sweep("--playbook", playbook), 3, "6 of 7 boots failed", "--max-failures")
    for record in coldstart.records():
        outcome = {"dead": "error:exited", "process": "ok"}.get(record["target"].partition("-")[0], "timeout")
        assert record["outcome"] == outcome, record
        assert ("ready" in record["marks_ns"]) == (outcome == "ok")
        assert "reclaimed" in record["marks_ns"]
        if outcome == "error:exited":
            assert "code 3" in record["detail"]
        if outcome == "timeout":
            assert "not ready within 0.8 s" in record["detail"]


# -- what was asked for cannot be


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--boots", "0"), ("--boots 0", "at least 1")),
        (("--playbook", "nonsense"), ("nonsense",)),
        (("--target", "nonsense"), ("--target nonsense",)),
        (("--start", "nonsense"), ("--start nonsense",)),
        (("--limit", "nonsense"), ("nonsense",)),
        (("--resume", "nonsense"), ("'nonsense' names no run",)),
    ],
)
def test_nonsense_on_the_command_line(coldstart: Coldstart, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Exit 2, one line, and no node is touched."""
    done = coldstart.sweep("inventories/local.yaml", *arguments)
    check_one_line(done, 2, *words)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert not (coldstart.folder / "cache").exists()
    assert not coldstart.runs()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("inventory.yaml", "all: {hosts: {a: {ansible_connection: local}, a: {}}}\n", ("inventory.yaml:1", "a")),
        ("inventory.yaml", "all: [\n", ("inventory.yaml:",)),
        ("inventory.yaml", "all:\n  hosts:\n    a: {ansible_password: x}\n", ("inventory.yaml:3", "password")),
        ("playbook.yaml", "name: test\ntargets: {a: {runtime: dokcer, image: x}}\n", ("playbook.yaml:2", "docker")),
        ("playbook.yaml", "name: test\nboots: 3\n", ("playbook.yaml:2", "boots")),
        ("playbook.yaml", "\x00", ("playbook.yaml",)),
    ],
)
def test_malformed_documents(coldstart: Coldstart, name: str, text: str, words: tuple[str, ...]) -> None:
    """Exit 2 with the file and its line; no node is touched and no store is made."""
    playbook = coldstart.playbook(PROCESS)
    coldstart.write(name, text)
    done = coldstart.sweep("--playbook", playbook)
    check_one_line(done, 2, *words)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert not coldstart.store.exists()
    assert not (coldstart.folder / "cache").exists()


@pytest.mark.parametrize("content", [b"not a database, but long enough to be taken for one" * 20, None])
def test_a_store_that_is_not_ours(coldstart: Coldstart, content: bytes | None) -> None:
    """A file of somebody else, or a folder: exit 2, and it is as it was."""
    if content is None:
        coldstart.store.mkdir()
    else:
        coldstart.store.write_bytes(content)
    check_one_line(coldstart.sweep("--playbook", coldstart.playbook(PROCESS)), 2, str(coldstart.store), "--store")
    assert content is None or coldstart.store.read_bytes() == content


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little, and soon for nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "none", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_store_on_a_full_disk(coldstart: Coldstart, full_disk: Path) -> None:
    """No boot is lost unsaid: the sweep ends where it can no longer store, in order; what was stored can be read."""
    coldstart.store = full_disk / "store.db"
    coldstart.environ["COLDSTART_STORE"] = str(coldstart.store)
    done = coldstart.sweep("--playbook", coldstart.playbook(PROCESS, "boots: 2000, gap: 0s"))
    check_one_line(done, 2, str(coldstart.store), "make room")
    assert not coldstart.leftovers()
    assert Counter(Counter(coldstart.boots()).values()).keys() <= {1}


def test_images_on_a_full_disk(coldstart: Coldstart, full_disk: Path) -> None:
    """A node that cannot take an image says which and why; with the floor that every node has it is not even tried."""
    (full_disk / "filler").write_bytes(bytes(156 * 1024))
    arguments = ("--playbook", coldstart.playbook(PROCESS))
    done = coldstart.sweep(*arguments, XDG_CACHE_HOME=str(full_disk))
    check_one_line(done, 4, "here: only 0 MiB of disk are free, the floor is 512 MiB", "coldstart_disk_floor")
    told = "{ansible_connection: local, coldstart_disk_floor: 1B}"
    inventory = coldstart.write("floor.yaml", f"all: {{hosts: {{here: {told}}}}}\n")
    done = coldstart.sweep(inventory, *arguments, XDG_CACHE_HOME=str(full_disk))
    check_one_line(done, 4, "here: hello", "No space left on device")


def test_python_missing(coldstart: Coldstart) -> None:
    """An interpreter that is not there, or is not one: the node is named, and what to set."""
    for python, words in (("/nonexistent", ("/nonexistent", "ansible_python_interpreter")), ("/bin/true", ("here",))):
        variables = f"{{ansible_connection: local, ansible_python_interpreter: {python}}}"
        inventory = coldstart.write("other.yaml", f"all: {{hosts: {{here: {variables}}}}}\n")
        done = coldstart.sweep(inventory, "--playbook", coldstart.playbook(PROCESS))
        check_one_line(done, 4, *words)
