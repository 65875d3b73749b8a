"""An sshd of our own on loopback: any configuration, a key pair for it, and an inventory with its nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

SSHD = "/usr/sbin/sshd"
START_S = 10.0


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Sshd:
    """One server. environ: what its sessions get. known_hosts holds its key; nobody else's is touched."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self.port = free_port()
        self.key = folder / "id"
        self.host_key = folder / "host_key"
        self.known_hosts = folder / "known_hosts"
        self._process: subprocess.Popen[bytes] | None = None
        keygen(self.key)
        keygen(self.host_key)
        self.trust()

    def trust(self) -> None:
        """Write its key into known_hosts."""
        kind, data, *_ = self.host_key.with_suffix(".pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port},[localhost]:{self.port} {kind} {data}\n")

    def start(self, *lines: str) -> None:
        """lines: more of sshd_config."""
        Path("/run/sshd").mkdir(exist_ok=True)
        setenv = " ".join(f'"{name}={value}"' for name, value in self.environ.items())
        own = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            "PidFile none",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            f"AuthorizedKeysFile {self.key}.pub",
            "StrictModes no",
            f"SetEnv {setenv}",
        ]
        config = self.folder / "sshd_config"
        config.write_text("\n".join([*lines, *own]) + "\n")  # the first of a keyword counts
        argv = [SSHD, "-D", "-e", "-f", str(config)]
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline_s, "sshd does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        """The listener only: sessions stay, as after `systemctl stop ssh`."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None

    def kill_sessions(self) -> None:
        """Its sessions, as a node that goes down would."""
        assert self._process is not None
        for pid in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def node(self, name: str = "remote", **more: str) -> str:
        """A host's line for an inventory."""
        told = {
            "ansible_host": "127.0.0.1",
            "ansible_port": str(self.port),
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": f'"-o UserKnownHostsFile={self.known_hosts}"',
            "coldstart_site": "cloud",
            **more,
        }
        return f"{name}: {{{', '.join(f'{key}: {value}' for key, value in told.items() if value)}}}"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
