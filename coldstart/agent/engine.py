"""Borrowing a Docker engine: where one is installed, not running, and there is no service manager that would start it.

It is marked in its environment (COLDSTART_ENGINE=<run>), so that whoever cleans up after the run finds and stops it; an
engine that ran before is never touched. Nothing is borrowed on a machine with a service manager: there, an engine that
does not run was stopped on purpose.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable

from coldstart.agent import spawn
from coldstart.agent.dockerapi import SYSTEM_SOCKET, ApiError
from coldstart.agent.runtimes import Unavailable

MARK = "COLDSTART_ENGINE"
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
AWAY_LIMIT_S = 8.0  # less than a watchdog's patience with a measurer that was told to end
# That a manager's folder is there proves nothing: packages make some of them on systems that run without one.
_RUNNING = ("/run/systemd/system", "/run/openrc/softlevel")
_FIRST_PROCESSES = ("systemd", "runit", "s6-svscan", "openrc-init")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def answers(socket_path: str) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(socket_path)
        except OSError:
            return False
    return True


def await_answer(ask: Callable[[], object]) -> None:
    """Ask until there is an answer: between boots an engine that is being restarted is waited for. The last error is
    raised after AWAY_LIMIT_S."""
    deadline_s = time.monotonic() + AWAY_LIMIT_S
    while True:
        try:
            ask()
            return
        except ApiError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(0.1)


def managed() -> bool:
    """Whether a service manager runs here: it would start the engine."""
    try:
        with open("/proc/1/comm", encoding="ascii", errors="replace") as file:
            first = file.read().strip()
    except OSError:
        first = ""
    return first in _FIRST_PROCESSES or any(os.path.exists(path) for path in _RUNNING)


def explain_or_borrow(run: str, socket_path: str, log_path: str) -> None:
    """For a socket where nobody answers: an engine that does, or Unavailable with the reason."""
    if os.path.exists(socket_path) and not os.access(socket_path, os.W_OK):
        hint = "sudo usermod -aG docker $USER, then log in again"
        raise Unavailable(f"no permission to use {socket_path}", hint)
    if socket_path != SYSTEM_SOCKET:  # somebody named it: an engine of ours there would be another one
        raise Unavailable(f"no Docker engine listens on {socket_path}", "correct coldstart_docker_host or DOCKER_HOST")
    borrow(run, socket_path, log_path)


def borrow(run: str, socket_path: str, log_path: str) -> int:
    """Start dockerd for this run and wait until it listens; its pid. Unavailable says why it was not started."""
    dockerd = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if dockerd is None:
        raise Unavailable(f"no Docker engine: nothing listens on {socket_path}", "install Docker, or set DOCKER_HOST")
    if managed():
        raise Unavailable("the Docker engine is installed but not running", "sudo systemctl start docker")
    if os.geteuid() != 0:
        raise Unavailable("the Docker engine is installed but not running", "start dockerd as root")
    environ = {**os.environ, MARK: run, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"}
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        pid = spawn.spawn([dockerd, "--host", f"unix://{socket_path}"], environ, log)
    finally:
        os.close(log)
    _await(pid, socket_path, log_path)
    return pid


def give_back(run: str, but: str) -> list[str]:
    """Stop the engines borrowed for `run` ('': for any run but `but`), and wait for their end."""
    stopped = []
    for pid in spawn.marked(MARK, run, but=but):
        if _is_dockerd(pid):
            spawn.kill(pid, signal.SIGTERM, limit_s=STOP_LIMIT_S)
            stopped.append(f"borrowed engine {pid}")
    return stopped


def _await(pid: int, socket_path: str, log_path: str) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while not answers(socket_path):
        ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        if ended or time.monotonic() > deadline_s:
            if not ended:
                spawn.kill(pid, signal.SIGTERM, limit_s=STOP_LIMIT_S)
            raise Unavailable(f"dockerd did not come up: {_last_line(log_path)}", f"read {log_path}")
        time.sleep(0.05)


def _is_dockerd(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            return file.read().strip() == "dockerd"
    except OSError:
        return False


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"
