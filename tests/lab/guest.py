"""A node that is a machine of its own: an aarch64 Debian that QEMU emulates, with a kernel, memory, a disk and clocks
that are nobody else's.

Its way to the switch is that of any other node; only, what stands at its end is no service but a bridge with the
guest's network interface behind it. So its link is cut, delayed and listened to as everywhere. What is in the guest is
seen from within only: by SSH, as long as its link carries anything.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from coldstart.archive import File
from coldstart.workloads import initramfs
from lab import cgroups, image, machine, network, nodefiles, traces
from lab.image import Image
from lab.node import Node, environ
from lab.waiting import TooLateError, until

COMMANDS = (machine.PROGRAM, "qemu-img", *image.COMMANDS)
# Its first process says so on its console.
SSHD_ANSWERS, ENGINE_LISTENS = "coldstart-lab: sshd answers", "coldstart-lab: engine listens"
SETTINGS = "/etc/coldstart-lab"  # what its first process is told
_BOOT_LIMIT_S = 120.0
_RECEIVE_LIMIT_S = 120.0
_SHOWN_BYTES = 800  # of its console, when something is wrong
_LEFTOVERS = """
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
print(json.dumps(leftovers(pids, os.listdir("/sys/class/net"), Path("/run/docker.sock"))))
"""
_ASK = """
print(json.dumps(ask(Path("/run/docker.sock"), {path!r})))
"""


class NotPossible(Exception):
    """What nobody can do to a guest."""


class Guest(Node):
    """Its disk outlives a reboot; its clocks begin anew, and its boot has an id of the kernel's."""

    # -- from nothing to a node that answers

    def create(self, public_key: str) -> None:
        found = image.get()
        self.folder.mkdir()
        (self.folder / image.LINK).symlink_to(found.folder)
        layer = ("-f", "qcow2", "-F", "raw", "-b", str(found.disk), str(self.folder / "disk.qcow2"))
        network.call("qemu-img", "create", "-q", *layer)
        (self.folder / "authorized_keys").write_text("\n".join((public_key, *self.shape.authorized, "")))
        self.make_host_key()

    def start(self, uptime_s: int | None = None) -> subprocess.Popen[str]:
        """uptime_s: not for this one, whose clocks begin when it does."""
        found = Image(self.folder / image.LINK)
        identity = initramfs.pack(File(f"identity{path}", text.encode(), mode) for path, mode, text in self._entries())
        (self.folder / "initrd").write_bytes(found.initrd.read_bytes() + identity)
        argv = machine.argv(
            machine.Machine(
                name=self.name,
                folder=str(self.folder),
                kernel=str(found.kernel),
                cpus=self.shape.processors,
                memory_bytes=self.shape.ram_bytes,
                mac=self.plugs[0].mac,
            )
        )
        spec = {"argv": argv, "netns": self.netns, "group": cgroups.leaf(self.group)}
        command = [sys.executable, "-S", "-m", "lab.machine", str(self.write("spec.json", spec))]
        return subprocess.Popen(command, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def started(self, starting: subprocess.Popen[str]) -> None:
        _, problem = starting.communicate()
        if starting.returncode != 0:
            raise network.CommandFailed(f"{self.name}: {problem.strip() or 'did not start'}")

    def wait_ready(self) -> None:
        """It says itself that it answers, whatever its link is like."""
        self._await(SSHD_ANSWERS, "sshd")
        if self.shape.engine:
            self._await(ENGINE_LISTENS, "dockerd")
            until(self.engine.answers, f"dockerd of {self.name}", _BOOT_LIMIT_S)

    def attach(self) -> None:
        """There is nothing to be known but its address."""

    # -- looking into it

    def run(
        self, argv: Sequence[str], *, text: str = "", limit_s: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command in it, as root; by SSH."""
        return subprocess.run(self._ssh(argv), input=text, capture_output=True, text=True, timeout=limit_s, check=check)

    def spawn(self, argv: Sequence[str]) -> None:
        """A command in it that goes on; its output is in the guest's /var/log/services.log."""
        command = f"{shlex.join(argv)} </dev/null >>/var/log/services.log 2>&1"
        self.run(["setsid", "--fork", "sh", "-c", f"exec {command}"])

    def receive(self, folder: Path, place: str) -> None:
        """Through its link, at the speed of that."""
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(folder, arcname=".")
            packed.seek(0)
            unpack = self._ssh(["sh", "-c", f"mkdir -p {place} && tar -xf - -C {place}"])
            subprocess.run(unpack, stdin=packed, capture_output=True, timeout=_RECEIVE_LIMIT_S, check=True)

    def leftovers(self) -> list[str]:
        """As of any node, from within."""
        found: list[str] = self._look(_LEFTOVERS)
        return found

    def ask_engine(self, path: str) -> Any:
        return self._look(_ASK.format(path=path))

    # -- what cannot be had

    def path(self, name: str) -> Path:
        self._refuse("its files are not seen from outside; next: run(['cat', ...])")

    def named(self, command: str) -> list[int]:
        self._refuse("its processes are not seen from outside; next: run(['pgrep', ...])")

    def change_host_key(self) -> None:
        self._refuse("it keeps its host key")

    def kill_sshd_sessions(self) -> int:
        self._refuse("there is no other way in than its SSH server; next: cut()")

    def stop_sshd(self) -> None:
        self._refuse("there is no other way in than its SSH server; next: cut()")

    def start_sshd(self) -> None:
        self._refuse("there is no other way in than its SSH server; next: mend()")

    def kill_engine(self) -> None:
        self._refuse("nobody starts its engine again; next: run(['pkill', ...])")

    def start_engine(self) -> None:
        self._refuse("its engine starts with it; next: reboot()")

    def restart_engine(self) -> None:
        self._refuse("its engine starts with it; next: reboot()")

    # -- how

    def _limit(self) -> None:
        """That it has so much is what QEMU sees to, which itself needs more."""

    def _connect(self) -> None:
        network.connect_guest(self.plugs[0], machine.TAP)

    def _await(self, words: str, what: str) -> None:
        try:
            until(lambda: self._has_said(words), f"{what} of {self.name}", _BOOT_LIMIT_S)
        except TooLateError as error:
            raise TooLateError(f"{error}; its console: {self._console()[-_SHOWN_BYTES:]}") from None

    def _has_said(self, words: str) -> bool:
        alive = bool(self.pids())
        said = self._console()
        if not alive and words not in said:
            raise network.CommandFailed(f"{self.name} has ended; its console: {said[-_SHOWN_BYTES:]}")
        return words in said

    def _console(self) -> str:
        return (self.folder / machine.CONSOLE).read_text(errors="replace")

    def _entries(self) -> list[nodefiles.Entry]:
        """Written to its disk at every start: who it is, and who may come in."""
        settings = f"address={self.address}/24\nengine={'yes' if self.shape.engine else 'no'}\n"
        keys = (self.folder / "authorized_keys").read_text()
        return [
            *nodefiles.entries(self.shape, host_key=(self.folder / "host_key").read_text(), hosts=self._hosts),
            (SETTINGS, 0o644, settings),
            ("/root/.ssh/authorized_keys", 0o600, keys),
        ]

    def _ssh(self, argv: Sequence[str]) -> list[str]:
        return ["ssh", "-F", str(self.folder.parent / "ssh_config"), self.name, shlex.join(argv)]

    def _look(self, code: str) -> Any:
        """`code` continues lab.traces: the same look from within that others get from outside. What it prints."""
        return json.loads(self.run(["python3", "-"], text=Path(traces.__file__).read_text() + code).stdout)

    def _refuse(self, why: str) -> NoReturn:
        raise NotPossible(f"{self.name} is a machine of its own: {why}")
