"""One node of the lab: starting it, the things that happen to nodes, and looking into it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lab import boot, cgroups, kernel, network, nodefiles, traces
from lab.network import Plug
from lab.shapes import Shape
from lab.waiting import until

TESTS = Path(__file__).resolve().parent.parent
SSHD = ("/usr/sbin/sshd", "-E", "/var/log/sshd.log")
ENGINE = ("/usr/sbin/dockerd", "--storage-driver", "overlay2", "--log-level", "warn")
ENGINE_SOCKET = "run/docker.sock"
REBOOTED_UPTIME_S = 10
_CONTROL_LIMIT_S = 5.0


class Node:
    """plugs: its own interface first; a jump host has another, in the segment behind it."""

    def __init__(self, shape: Shape, folder: Path, plugs: Sequence[Plug], hosts: str) -> None:
        self.shape = shape
        self.name = shape.name
        self.folder = folder
        self.plugs = list(plugs)
        self.netns = network.PREFIX + shape.name
        self._hosts = hosts
        self._pid = 0

    @property
    def address(self) -> str:
        return self.plugs[0].address

    @property
    def public_host_key(self) -> str:
        """`ssh-ed25519 AAAA...`"""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    # -- from nothing to a node that answers

    def create(self, public_key: str) -> None:
        """Its folder, once."""
        self.folder.mkdir()
        (self.folder / "mnt").mkdir()
        self._make_host_key()
        nodefiles.write_disk(self.folder / "disk", self.shape, public_key)
        cgroups.make(self.name)
        cgroups.limit(self.shape)

    def wire(self) -> None:
        """Its network namespace and its way to the switch."""
        network.add_node(self.netns)
        if self.shape.has_line:
            self._start_line()
        else:
            network.add_pair(self.plugs[0])
        for plug in self.plugs[1:]:
            network.add_pair(plug)
        for plug in self.plugs:
            network.connect(plug)
        if self.shape.mbit:
            network.throttle(self.plugs[0], self.shape.mbit)

    def start(self, uptime_s: int | None = None) -> subprocess.Popen[str]:
        """What it returns is for `started`: others may start meanwhile."""
        spec = self._folder_file("spec.json", self._spec(uptime_s))
        argv = [sys.executable, "-S", "-m", "lab.boot", str(spec)]
        return subprocess.Popen(argv, env=_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def started(self, starting: subprocess.Popen[str]) -> None:
        out, problem = starting.communicate()
        if starting.returncode != 0:
            raise network.CommandFailed(problem.strip() or f"{self.name}: did not start")
        self._pid = int(out)
        self._folder_file("pid", self._pid)

    def wait_ready(self) -> None:
        """SSH answers, and the engine if one was asked for."""
        until(self.answers, f"sshd of {self.name}")
        if self.shape.engine:
            until(self.engine_answers, f"dockerd of {self.name}")

    def answers(self) -> bool:
        """From within its own network: however bad its link is."""
        with kernel.socket_in(self.netns, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            try:
                sock.connect((self.address, 22))
                return sock.recv(4) == b"SSH-"
            except OSError:
                return False

    def engine_answers(self) -> bool:
        return traces.ask(self._path(ENGINE_SOCKET), "/_ping") is not None

    # -- what happens to nodes

    def cut(self) -> None:
        """Its link carries nothing any more, and nobody is told."""
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
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind("")  # the kernel chooses an address, for the answer
            sock.settimeout(_CONTROL_LIMIT_S)
            fd = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
            try:
                sock.sendto(json.dumps(settings).encode(), f"/proc/self/fd/{fd}/line.sock")
            finally:
                os.close(fd)
            sock.recv(16)

    def set_bandwidth(self, mbit: float) -> None:
        network.throttle(self.plugs[0], mbit)

    def kill_sshd_sessions(self) -> int:
        """Every connection's server, none of them told; the listener goes on. How many processes that were."""
        sessions = [pid for pid in self._named("sshd") if pid not in self._listeners()]
        return _kill(sessions)

    def stop_sshd(self) -> None:
        """The listener only: connections go on, new ones are refused."""
        _kill(self._listeners())
        until(lambda: not self._listeners(), f"end of sshd of {self.name}")

    def start_sshd(self) -> None:
        self._service(SSHD)
        until(self.answers, f"sshd of {self.name}")

    def stop_engine(self) -> None:
        """As a crash would: at once, its containers are left without it."""
        _kill(self._named("dockerd"))
        until(lambda: not self._named("dockerd"), f"end of dockerd of {self.name}")

    def start_engine(self) -> None:
        self._service(ENGINE)
        until(self.engine_answers, f"dockerd of {self.name}")

    def restart_engine(self) -> None:
        """As a service manager would: containers end with it."""
        for pid in self._named("dockerd"):
            _signal(pid, signal.SIGTERM)
        until(lambda: not self._named("dockerd"), f"end of dockerd of {self.name}")
        self.start_engine()

    def halt(self) -> None:
        """As by pulling the plug: nothing is told, nothing runs, no link."""
        until(lambda: not _kill(cgroups.pids(self.name)), f"end of {self.name}")
        until(lambda: not _kill(network.pids(self.netns)), f"end of the line of {self.name}")
        network.remove_node(self.netns, self.plugs)

    def reboot(self, uptime_s: int = REBOOTED_UPTIME_S) -> None:
        """Everything in it ends, untold; then it starts again, and its monotonic clock anew. Its disk remains."""
        self.halt()
        cgroups.remove(self.name)
        cgroups.make(self.name)
        cgroups.limit(self.shape)
        self.wire()
        self.started(self.start(uptime_s))
        self.wait_ready()

    def change_host_key(self) -> None:
        """To one that the lab's known_hosts does not list."""
        self._make_host_key()
        target = self._path("etc/ssh/ssh_host_ed25519_key")
        target.write_text((self.folder / "host_key").read_text())
        self.stop_sshd()
        self.start_sshd()

    # -- looking into it

    def run(
        self, argv: Sequence[str], *, text: str = "", limit_s: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command in it, as root, within its limits; without SSH."""
        return subprocess.run(
            self._entered(argv),
            input=text,
            env=boot.ENVIRONMENT,
            preexec_fn=self._join,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=check,
        )

    def pids(self) -> list[int]:
        """Every process in it, containers too, by this machine's numbers."""
        return cgroups.pids(self.name)

    def leftovers(self) -> list[str]:
        """What coldstart has left here, in words."""
        interfaces = network.links(self.netns)
        return traces.leftovers(self.pids(), interfaces, self._path(ENGINE_SOCKET))

    def engine(self, path: str) -> object:
        """GET from its engine; None if there is none."""
        return traces.ask(self._path(ENGINE_SOCKET), path)

    # -- how

    def attach(self) -> None:
        """To a node that another process has started."""
        self._pid = int((self.folder / "pid").read_text())

    def _spec(self, uptime_s: int | None) -> dict[str, object]:
        services = [SSHD, ENGINE] if self.shape.engine else [SSHD]
        return {
            "shape": self.shape.as_data(),
            "folder": str(self.folder),
            "netns": self.netns,
            "uptime_s": self.shape.uptime_s if uptime_s is None else uptime_s,
            "services": services,
            "files": nodefiles.entries(self.shape, host_key=(self.folder / "host_key").read_text(), hosts=self._hosts),
            "password_hash": nodefiles.PASSWORD_HASH,
        }

    def _start_line(self) -> None:
        plug, shape = self.plugs[0], self.shape
        settings = {name: getattr(shape, name) for name in ("up_ms", "down_ms", "jitter_ms", "loss")}
        spec = {"folder": str(self.folder), "switch": plug.segment.netns, "netns": self.netns, "port": plug.port}
        path = self._folder_file("line.json", spec | {"settings": settings})
        with (self.folder / "line.log").open("w") as log:
            argv = [sys.executable, "-S", "-m", "lab.line", str(path)]
            null = subprocess.DEVNULL
            done = subprocess.run(argv, env=_environ(), stdin=null, stdout=null, stderr=log, check=False)
        if done.returncode != 0:
            raise network.CommandFailed(f"line of {self.name}: {(self.folder / 'line.log').read_text()}")

    def _make_host_key(self) -> None:
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        make_key(self.folder / "host_key", self.name)

    def _folder_file(self, name: str, data: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(data))
        return path

    def _path(self, name: str) -> Path:
        """A file as the node sees it."""
        return Path(f"/proc/{self._pid}/root", name)

    def _entered(self, argv: Sequence[str]) -> list[str]:
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time")
        return ["/usr/bin/nsenter", "--target", str(self._pid), *namespaces, "--wd=/root", "--", *argv]

    @property
    def _join(self) -> Callable[[], None]:
        return partial(cgroups.join, self.name)

    def _service(self, argv: Sequence[str]) -> None:
        with open(self._path("var/log/services.log"), "ab") as log:
            subprocess.run(
                self._entered(["/usr/bin/setsid", "--fork", *argv]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=boot.ENVIRONMENT,
                preexec_fn=self._join,
                check=True,
            )

    def _named(self, name: str) -> list[int]:
        return [pid for pid in self.pids() if traces.command(pid) == name]

    def _listeners(self) -> list[int]:
        """sshd writes into its command line what it is."""
        return [pid for pid in self._named("sshd") if b"[listener]" in traces.read(pid, "cmdline")]


def make_key(path: Path, comment: str) -> None:
    network.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}


def _kill(pids: Sequence[int]) -> int:
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    return len(pids)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
