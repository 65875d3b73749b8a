"""What live tests share: the command line with a place of its own, an engine, and a list of what was left behind.

One sweep a node: every test here holds the machine's lock for as long as it runs, so that nobody else's sweep comes
between, and its own sweeps use a lock beside its store (COLDSTART_LOCK; such a sweep leaves other runs alone).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.fixture import fleet, make_lab  # noqa: F401 - fixtures

from coldstart import bundle
from coldstart.agent import engine as engines
from coldstart.agent import lock, netlink, tap
from coldstart.agent.dockerapi import SYSTEM_SOCKET, Engine, negotiated
from coldstart.agent.subnets import bridge_name
from coldstart.store import Store

LOCK_PATIENCE_S = 120.0
PATIENCE_S = 30.0
COMMAND = str(Path(sys.executable).with_name("coldstart"))
INVENTORY = "all: {hosts: {here: {ansible_connection: local}}}\n"


def poll(condition: Callable[[], Any], limit_s: float = PATIENCE_S) -> Any:
    """Its first true value, or the test fails."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            return pytest.fail(f"not within {limit_s:g} s")
        time.sleep(0.005)


class Machine:
    """The machine's own lock. run: who holds it, in the words of `node busy`."""

    run = "live-tests"

    def __init__(self) -> None:
        self._fd = -1

    def take(self) -> None:
        """Waits for sweeps of others to end."""
        poll(self._taken, LOCK_PATIENCE_S)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _taken(self) -> bool:
        try:
            self._fd = lock.take(self.run)
        except lock.Busy:
            time.sleep(0.05)
            return False
        return True


@pytest.fixture
def node() -> Iterator[Machine]:
    """The machine to ourselves."""
    machine = Machine()
    machine.take()
    yield machine
    machine.release()


def ask(path: str, **filters: list[str]) -> Any:
    """GET from the engine; with filters."""
    with Engine(SYSTEM_SOCKET) as asked:
        version = negotiated(asked.call("GET", "/version"))
    with Engine(SYSTEM_SOCKET, version) as asked:
        return asked.call("GET", path, filters=json.dumps(filters), all="true")


def containers(run: str) -> list[dict[str, Any]]:
    """Containers that bear the run's mark, in whatever state."""
    found: list[dict[str, Any]] = ask("/containers/json", label=[f"coldstart.run={run}"])
    return found


class Sweep:
    """A command that runs in the background."""

    def __init__(self, process: subprocess.Popen[str], store: Path, folder: Path) -> None:
        self.process = process
        self._store = store
        self._folder = folder

    @property
    def run(self) -> str:
        """Its id, once it has one."""
        return str(poll(lambda: re.search(r"^run (\S+):", self.stderr, re.MULTILINE)).group(1))

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text()

    @property
    def stdout(self) -> str:
        return (self._folder / "stdout").read_text()

    def agents(self) -> dict[str, int]:
        """Pids: `watchdog` and `measurer`, once both are there."""
        watchdog = poll(lambda: self._children(self.process.pid))
        measurer = poll(lambda: self._children(watchdog[0]))
        return {"watchdog": watchdog[0], "measurer": measurer[0]}

    def stored(self, count: int = 1) -> list[tuple[str, int]]:
        """(target, index) of the stored boots, once there are so many."""
        return list(poll(lambda: len(found := boots(self._store, self.run)) >= count and found))

    def starting(self) -> str:
        """A container that the engine is about to start."""
        return str(poll(lambda: [c["Id"] for c in containers(self.run) if c["State"] == "created"])[0])

    def instance(self) -> list[int]:
        """Pids of the running instance, process or container."""
        return list(poll(lambda: processes("COLDSTART_RUN", self.run) or self._running()))

    def wait(self, limit_s: float = PATIENCE_S) -> int:
        return self.process.wait(limit_s)

    def _running(self) -> list[int]:
        states = [ask(f"/containers/{c['Id']}/json")["State"] for c in containers(self.run) if c["State"] == "running"]
        return [state["Pid"] for state in states]

    def _children(self, pid: int) -> list[int]:
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return []
        return [int(child) for child in text.split() if _is_agent(child)]


class Coldstart:
    """The command line, with everything of its own below `folder`."""

    limit_s = 60.0  # of whatever is run to its end

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store.db"
        self.environ = {
            **os.environ,
            "COLDSTART_STORE": str(self.store),
            "COLDSTART_LOCK": str(folder / "lock"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONWARNINGS": "default",
        }
        self.started: list[Sweep] = []
        self.write("inventory.yaml", INVENTORY)

    def write(self, name: str, text: str) -> str:
        """A file; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def playbook(self, targets: str, load: str = "boots: 2, gap: 0s", more: str = "", timeout: str = "10s") -> str:
        """A playbook with these targets, one a line; its path."""
        ready = f'ready: {{http: {{port: 8080, body: "Serverless Unikernels!"}}, timeout: {timeout}}}'
        listed = "".join(f"  {line.strip()}\n" for line in targets.strip().splitlines())
        return self.write("playbook.yaml", f"name: test\n{ready}\ntargets:\n{listed}load: {{{load}}}\n{more}\n")

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end. Whatever it is told, there is never a traceback, nor a warning of Python's."""
        done = subprocess.run(
            [COMMAND, *arguments],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=self.limit_s,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done

    def sweep(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self("sweep", *self._defaults(arguments), **environ)

    def start(self, *arguments: str) -> Sweep:
        """A sweep in the background."""
        folder = self.folder / f"sweep{len(self.started)}"
        folder.mkdir()
        with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
            argv = [COMMAND, "sweep", *self._defaults(arguments)]
            process = subprocess.Popen(argv, env=self.environ, stdout=out, stderr=err, text=True)
        self.started.append(Sweep(process, self.store, folder))
        return self.started[-1]

    def boots(self, run: str = "latest") -> list[tuple[str, int]]:
        return boots(self.store, run)

    def records(self) -> list[dict[str, Any]]:
        """Every boot of the latest run, as exported."""
        done = self("export", "latest")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def runs(self) -> list[str]:
        """Every run that its store knows; none if that is not one."""
        try:
            with Store.open(self.store, readonly=True) as store:
                return [run.id for run in store.runs()]
        except Exception:  # noqa: BLE001 - a test may have made anything of it
            return []

    def leftovers(self) -> list[str]:
        """Everything that bears the mark of one of its runs, and every agent that it started."""
        return [thing for run in self.runs() for thing in leftovers(run)] + [
            f"agent {pid}" for pid in processes("XDG_CACHE_HOME", self.environ["XDG_CACHE_HOME"]) if _is_agent(str(pid))
        ]

    def _defaults(self, arguments: tuple[str, ...]) -> list[str]:
        """An inventory, unless the first argument names one."""
        given = bool(arguments) and not arguments[0].startswith("-")
        return [*arguments] if given else [str(self.folder / "inventory.yaml"), *arguments]


def boots(store: Path, run: str) -> list[tuple[str, int]]:
    """(target start, index) of every boot of a run; none if there is no store yet."""
    try:
        with Store.open(store, readonly=True) as opened:
            cells = opened.cells(opened.find(run).id)
    except Exception:  # noqa: BLE001 - it may be half made
        return []
    return [(f"{cell.trial.target} {cell.trial.start}", boot.index) for cell in cells for boot in cell.boots]


def leftovers(run: str) -> list[str]:
    """Everything on this machine that bears the run's mark."""
    found = [f"process {pid}" for pid in processes("COLDSTART_RUN", run)]
    bridges = {bridge_name(run), *(name for name, alias in netlink.aliases().items() if alias == tap.ALIAS + run)}
    found += [f"interface {name}" for name in os.listdir("/sys/class/net") if name in bridges]
    if engines.answers(SYSTEM_SOCKET):
        found += [f"container {c['Names'][0]}" for c in containers(run)]
        found += [f"network {n['Name']}" for n in ask("/networks", label=[f"coldstart.run={run}"])]
    return found


def processes(name: str, value: str) -> list[int]:
    """Processes with this variable in their environment."""
    wanted = f"{name}={value}".encode()
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and wanted in _read(pid, "environ").split(b"\0")]


def _is_agent(pid: str) -> bool:
    return bundle.NAME.encode() in _read(pid, "cmdline").split(b"\0")


def _read(pid: str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def coldstart(tmp_path: Path, node: Machine) -> Iterator[Coldstart]:
    """The command line; whatever the test does with it, nothing may be left of it in the end."""
    command = Coldstart(tmp_path)
    yield command
    for sweep in command.started:
        if sweep.process.poll() is None:
            sweep.process.kill()
            sweep.process.wait()
    poll(lambda: not command.leftovers())
