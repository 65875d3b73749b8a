"""A started container, as the boot loop sees it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence

from coldstart.agent import resources
from coldstart.agent.dockerapi import ApiError, Engine

OUTPUT_BYTES = 1 << 20


class Container:
    """mac: of its interface, to find the host's end of the pair on `bridge`; empty when that does not exist here."""

    def __init__(self, engine: Engine, container: str, bridge: str, mac: str) -> None:
        self._engine = engine
        self._id = container
        self._bridge = bridge
        self._mac = mac
        self._wait = engine.wait_socket(container)
        self._answer = b""
        self.exited = self._wait.fileno()

    def processes(self) -> Sequence[int]:
        """The container's processes and its shim; none if it has ended or lives where they cannot be seen."""
        try:
            pid = self._engine.call("GET", f"/containers/{self._id}/json")["State"]["Pid"]
        except ApiError:
            return []  # the engine is gone: `stop` will say so
        if not pid or not os.path.isdir(f"/proc/{pid}"):
            return []
        inside = {member for path in resources.cgroups_of(str(pid)) for member in _members(path, self._id)}
        shim = _parent(pid)
        return sorted(inside | {pid}) + ([shim] if shim > 1 else [])

    def interfaces(self) -> Sequence[str]:
        """The bridge's port behind which our MAC address was seen."""
        if not self._mac:
            return []
        ports = f"/sys/class/net/{self._bridge}/brif"
        number = port_of(_bytes(f"/sys/class/net/{self._bridge}/brforward"), self._mac)
        names = os.listdir(ports) if os.path.isdir(ports) else []
        return [name for name in names if number and _bytes(f"{ports}/{name}/port_no").strip() == b"0x%x" % number]

    def exit_code(self) -> int | None:
        if not self._answer:
            self._wait.settimeout(0)
            try:
                self._answer = self._wait.recv(65536)
            except BlockingIOError:
                return None
        start, end = self._answer.find(b"{"), self._answer.rfind(b"}")
        return int(json.loads(self._answer[start : end + 1])["StatusCode"]) if start >= 0 else None

    def output(self) -> str:
        try:
            raw = self._engine.text(f"/containers/{self._id}/logs", stdout="1", stderr="1", tail="5000")
        except ApiError:
            return ""  # a log driver that cannot be read back
        return demultiplexed(raw).decode("utf-8", "replace")[-OUTPUT_BYTES:]

    def remains(self) -> list[str]:
        return []

    def end(self) -> None:
        """Kill and remove, in one call; it returns when the container no longer exists."""
        self._wait.close()
        self._engine.call("DELETE", f"/containers/{self._id}", force="true", v="true")


def demultiplexed(raw: bytes) -> bytes:
    """stdout and stderr in the order they came: frames of 8 bytes of head (stream, 0, 0, 0, length) and a body."""
    parts, at = [], 0
    while at + 8 <= len(raw) and raw[at] <= 2 and raw[at + 1 : at + 4] == b"\0\0\0":
        (length,) = struct.unpack_from(">I", raw, at + 4)
        parts.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts) or raw  # with a TTY there are no frames


def port_of(table: bytes, mac: str) -> int:
    """The bridge port behind which a MAC address was learnt, of the bytes of `brforward` (struct __fdb_entry); or 0."""
    wanted = bytes.fromhex(mac.replace(":", ""))
    for address, low, _, high in struct.iter_unpack("=6sBB4xB3x", table[: len(table) - len(table) % 16]):
        if address == wanted:
            return int(low) | int(high) << 8
    return 0


def _members(cgroup: str, container: str) -> list[int]:
    """Pids in the container's own group; an engine may put it beside others."""
    if container not in cgroup:
        return []
    return [int(text) for text in _bytes(f"{cgroup}/cgroup.procs").split()]


def _parent(pid: int) -> int:
    for line in _bytes(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"PPid:"):
            return int(line.split()[1])
    return 0


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
