"""Looking from outside at what runs in a node: processes, its engine, interfaces; at what coldstart left of those."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

RUN_MARK, ENGINE_MARK = b"COLDSTART_RUN=", b"COLDSTART_ENGINE="
AGENT = b"coldstart-agent"
INTERFACE_PREFIX = "cs-"
_LABEL = quote(json.dumps({"label": ["coldstart.run"]}))
_LIMIT_S = 10.0


def leftovers(pids: Sequence[int], interfaces: Sequence[str], engine: Path) -> list[str]:
    """In words; empty if nothing is left."""
    found = [f"process {pid}: {_words(pid)}" for pid in pids if is_marked(pid)]
    found += [f"agent {pid}: {_words(pid)}" for pid in pids if AGENT in read(pid, "cmdline") and not is_marked(pid)]
    found += [f"interface {name}" for name in interfaces if name.startswith(INTERFACE_PREFIX)]
    for container in ask(engine, f"/containers/json?all=true&filters={_LABEL}") or []:
        found.append(f"container {container['Id'][:12]} {container['Names']} {container['State']}")
    for network in ask(engine, f"/networks?filters={_LABEL}") or []:
        found.append(f"network {network['Name']}")
    return found


def is_marked(pid: int) -> bool:
    """Whether it was started for a run."""
    return any(word.startswith((RUN_MARK, ENGINE_MARK)) for word in read(pid, "environ").split(b"\0"))


def command(pid: int) -> str:
    """Its short name; of what has ended, none."""
    if b"\nState:\tZ" in read(pid, "status"):
        return ""
    return read(pid, "comm").decode(errors="replace").strip()


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def ask(engine: Path, path: str) -> Any:
    """GET, what JSON it answered, else its text; None if nobody answers there."""
    connection = _EngineConnection(engine)
    try:
        connection.request("GET", path)
        answer = connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return json.loads(answer) if answer[:1] in (b"[", b"{") else answer.decode()


class _EngineConnection(http.client.HTTPConnection):
    """By way of a descriptor of its folder: the path of a socket may have 107 bytes only."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(_LIMIT_S)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


def _words(pid: int) -> str:
    return " ".join(read(pid, "cmdline").decode(errors="replace").split("\0"))[:80].strip()
