"""What runs in a node of itself: its SSH server and its engine."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

from lab import kernel, traces
from lab.removal import kill
from lab.waiting import until

if TYPE_CHECKING:
    from lab.node import Node

SSHD = ("/usr/sbin/sshd", "-E", "/var/log/sshd.log")
ENGINE = ("/usr/sbin/dockerd", "--storage-driver", "overlay2", "--log-level", "warn")


class Sshd:
    def __init__(self, node: Node) -> None:
        self._node = node

    def answers(self) -> bool:
        """From within the node's own network: however bad its link is."""
        with kernel.socket_in(self._node.netns, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            try:
                sock.connect((self._node.address, 22))
                return sock.recv(4) == b"SSH-"
            except OSError:
                return False

    def start(self) -> None:
        self._node.spawn(SSHD)
        until(self.answers, f"sshd of {self._node.name}")

    def stop(self) -> None:
        kill(self.listeners(), signal.SIGKILL)
        until(lambda: not self.listeners(), f"end of sshd of {self._node.name}")

    def kill_sessions(self) -> int:
        listeners = self.listeners()
        # From OpenSSH 9.8 on, sessions are programs of their own: sshd-session.
        return kill(
            [p for p in self._node.pids() if traces.command(p)[:4] == "sshd" and p not in listeners], signal.SIGKILL
        )

    def listeners(self) -> list[int]:
        """sshd writes into its command line what it is."""
        return [pid for pid in self._node.named("sshd") if b"[listener]" in traces.read(pid, "cmdline")]


class Engine:
    def __init__(self, node: Node) -> None:
        self._node = node

    def get(self, path: str) -> Any:
        """What it answers; None if nobody does."""
        return self._node.ask_engine(path)

    def info(self) -> dict[str, Any]:
        """What it says about itself and its machine."""
        found: dict[str, Any] = self.get("/info") or {}
        return found

    def answers(self) -> bool:
        return self.get("/_ping") is not None

    def start(self) -> None:
        self._node.spawn(ENGINE)
        until(self.answers, f"dockerd of {self._node.name}")

    def end(self, number: int) -> None:
        kill(self._node.named("dockerd"), number)
        until(lambda: not self._node.named("dockerd"), f"end of dockerd of {self._node.name}")
