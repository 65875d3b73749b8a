"""One node of the lab: starting it, the things that happen to nodes, and looking into it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import boot, cgroups, network, nodefiles, traces
from lab.names import Names
from lab.network import Plug
from lab.removal import kill
from lab.services import ENGINE, SSHD, Engine, Sshd
from lab.shapes import Shape
from lab.waiting import until

TESTS = Path(__file__).resolve().parent.parent
REBOOTED_UPTIME_S = 10
_CONTROL_LIMIT_S = 5.0
_ENTER = 'for door in $1; do echo 0 >"$door"; done; shift; exec "$@"'
_LINE_SETTINGS = ("up_ms", "down_ms", "jitter_ms", "loss")


class Node:
    """plugs: its own interface first; a jump host has another, in the segment behind it."""

    def __init__(self, shape: Shape, folder: Path, plugs: Sequence[Plug], hosts: str) -> None:
        self.shape = shape
        self.name = shape.name
        self.folder = folder
        self.plugs = list(plugs)
        self.sshd = Sshd(self)
        self.engine = Engine(self)
        self._hosts = hosts
        self._pid = 0

    @property
    def address(self) -> str:
        return self.plugs[0].address

    @property
    def netns(self) -> str:
        return self.plugs[0].netns

    @property
    def group(self) -> str:
        """Its control group, in every hierarchy."""
        return f"{self._names.group}/{self.name}"

    @property
    def public_host_key(self) -> str:
        """`ssh-ed25519 AAAA...`"""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    # -- from nothing to a node that answers

    def create(self, public_key: str) -> None:
        """Its folder, once."""
        self.folder.mkdir()
        (self.folder / "mnt").mkdir()
        self.make_host_key()
        nodefiles.write_disk(self.folder / "disk", self.shape, public_key)

    def wire(self) -> None:
        """Its control groups, its network namespace and its way to the switch."""
        cgroups.make(cgroups.leaf(self.group))
        self._limit()
        network.add_node(self.netns)
        if self.shape.has_line:
            self._start_line()
        for plug in self.plugs[1 if self.shape.has_line else 0 :]:
            network.add_pair(plug)
        self._connect()
        if self.shape.mbit:
            self.set_bandwidth(self.shape.mbit)

    def start(self, uptime_s: int | None = None) -> subprocess.Popen[str]:
        """What it returns is for `started`: others may start meanwhile."""
        path = self.write("spec.json", self._spec(self.shape.uptime_s if uptime_s is None else uptime_s))
        argv = [sys.executable, "-S", "-m", "lab.boot", str(path)]
        return subprocess.Popen(argv, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def started(self, starting: subprocess.Popen[str]) -> None:
        out, problem = starting.communicate()
        if starting.returncode != 0:
            raise network.CommandFailed(problem.strip() or f"{self.name}: did not start")
        self._pid = int(out)
        self.write("pid", self._pid)

    def wait_ready(self) -> None:
        """SSH answers, and the engine if one was asked for."""
        until(self.sshd.answers, f"sshd of {self.name}")
        if self.shape.engine:
            until(self.engine.answers, f"dockerd of {self.name}")

    # -- what happens to nodes

    def cut(self) -> None:
        """Its link carries nothing any more, and nobody is told: no reset, no carrier lost."""
        if self.shape.has_line:
            self.set_line(cut=True)
        else:
            network.unplug(self.plugs[0])

    def mend(self) -> None:
        if self.shape.has_line:
            self.set_line(cut=False)
        else:
            network.plug_in(self.plugs[0])

    def set_line(self, **settings: float | bool) -> None:
        """up_ms, down_ms, jitter_ms, loss, cut: from now on. Only of a node with a delay line."""
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.bind("")  # the kernel chooses an address, for the answer
                sock.settimeout(_CONTROL_LIMIT_S)
                sock.sendto(json.dumps(settings).encode(), f"/proc/self/fd/{folder}/line.sock")
                sock.recv(16)
        finally:
            os.close(folder)

    def set_bandwidth(self, mbit: float) -> None:
        """Of either direction."""
        network.throttle(self.plugs[0], mbit)

    def kill_sshd_sessions(self) -> int:
        """Every connection's server, untold; the listener goes on. How many processes that were."""
        return self.sshd.kill_sessions()

    def stop_sshd(self) -> None:
        """The listener only: connections go on, new ones are refused."""
        self.sshd.stop()

    def start_sshd(self) -> None:
        self.sshd.start()

    def kill_engine(self) -> None:
        """As by a crash: its containers go on without it."""
        self.engine.end(signal.SIGKILL)

    def start_engine(self) -> None:
        self.engine.start()

    def restart_engine(self) -> None:
        """As a service manager would: containers end with it."""
        self.engine.end(signal.SIGTERM)
        self.engine.start()

    def halt(self) -> None:
        """As by pulling the plug: nothing is told, nothing runs, no link."""
        until(lambda: not kill(self._inside(), signal.SIGKILL), f"end of {self.name}")
        network.remove_node(self.netns, self.plugs)
        cgroups.remove(self.group)

    def reboot(self, uptime_s: int = REBOOTED_UPTIME_S) -> None:
        """Everything in it ends, untold, if `halt` has not done that; then it starts again, and its monotonic clock
        anew. Its disk remains."""
        if self.netns in network.namespaces():
            self.halt()
        self.wire()
        self.started(self.start(uptime_s))
        self.wait_ready()

    def change_host_key(self) -> None:
        """To one that the lab's known_hosts does not list."""
        self.make_host_key()
        self.path("etc/ssh/ssh_host_ed25519_key").write_text((self.folder / "host_key").read_text())
        self.sshd.stop()
        self.sshd.start()

    # -- looking into it

    def run(
        self, argv: Sequence[str], *, text: str = "", limit_s: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command in it, as root, within its limits; without SSH."""
        return subprocess.run(
            self._entered(argv),
            input=text,
            env=boot.ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=check,
        )

    def spawn(self, argv: Sequence[str]) -> None:
        """A command in it that goes on; its output is in the node's /var/log/services.log."""
        with self.path("var/log/services.log").open("ab") as log:
            subprocess.run(
                self._entered(["/usr/bin/setsid", "--fork", *argv]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=boot.ENVIRONMENT,
                check=True,
            )

    def receive(self, folder: Path, place: str) -> None:
        """The files of a folder of this machine's, in one of the node's."""
        shutil.copytree(folder, self.path(place), dirs_exist_ok=True)

    def path(self, name: str) -> Path:
        """A file as the node sees it."""
        return Path(f"/proc/{self._pid}/root", name.lstrip("/"))

    def pids(self) -> list[int]:
        """Every process in it, containers too, by this machine's numbers."""
        return cgroups.pids(self.group)

    def named(self, command: str) -> list[int]:
        """Those of one command."""
        return [pid for pid in self.pids() if traces.command(pid) == command]

    def leftovers(self) -> list[str]:
        """What coldstart has left here, in words."""
        return traces.leftovers(self.pids(), network.links(self.netns), self.path("run/docker.sock"))

    def attach(self) -> None:
        """To a node that another process has started."""
        self._pid = int((self.folder / "pid").read_text())

    def ask_engine(self, path: str) -> Any:
        """What its engine answers; None if nobody does."""
        return traces.ask(self.path("run/docker.sock"), path)

    # -- how

    @property
    def _names(self) -> Names:
        return self.plugs[0].segment.names

    def _limit(self) -> None:
        cgroups.limit(self.group, self.shape)

    def _connect(self) -> None:
        for plug in self.plugs:
            network.connect(plug)

    def _inside(self) -> list[int]:
        """With its delay line."""
        return sorted({*self.pids(), *network.pids(self.netns)})

    def _spec(self, uptime_s: int | None) -> dict[str, object]:
        """What lab.boot is told."""
        host_key = (self.folder / "host_key").read_text()
        return {
            "shape": self.shape.as_data(),
            "folder": str(self.folder),
            "netns": self.netns,
            "group": self.group,
            "uptime_s": uptime_s,
            "services": [SSHD, ENGINE] if self.shape.engine else [SSHD],
            "files": nodefiles.entries(self.shape, host_key=host_key, hosts=self._hosts),
            "password_hash": nodefiles.PASSWORD_HASH,
        }

    def _start_line(self) -> None:
        plug, null = self.plugs[0], subprocess.DEVNULL
        spec = {"folder": str(self.folder), "switch": plug.segment.netns, "netns": self.netns, "port": plug.port}
        spec["group"] = f"{self._names.group}/{cgroups.HELPERS}"
        settings = {name: getattr(self.shape, name) for name in _LINE_SETTINGS}
        argv = [sys.executable, "-S", "-m", "lab.line", str(self.write("line.json", spec | {"settings": settings}))]
        with (self.folder / "line.log").open("w") as log:
            done = subprocess.run(argv, env=environ(), stdin=null, stdout=null, stderr=log, check=False)
        if done.returncode != 0:
            raise network.CommandFailed(f"line of {self.name}: {(self.folder / 'line.log').read_text()}")

    def make_host_key(self) -> None:
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        nodefiles.make_key(self.folder / "host_key", self.name)

    def write(self, name: str, data: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(data))
        return path

    def _entered(self, argv: Sequence[str]) -> list[str]:
        """Within its limits, too. Not in Python between fork and exec: whoever tests may have threads."""
        doors = " ".join(str(path) for path in cgroups.doors(cgroups.leaf(self.group)))
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time", "--wdns=/root")
        return [
            "/bin/sh",
            "-c",
            _ENTER,
            "enter",
            doors,
            "nsenter",
            "--target",
            str(self._pid),
            *namespaces,
            "--",
            *argv,
        ]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}
