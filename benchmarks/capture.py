"""An independent witness: tcpdump on the instance's link, and its clock mapped to ours.

tcpdump's stamps are the kernel's, of CLOCK_REALTIME; a boot's marks are of CLOCK_MONOTONIC. The distance between the
two is sampled before and after every boot (monotonic, realtime, monotonic; the tightest of many) and interpolated, so
that a clock that is being slewed does not matter.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from benchmarks.result import NotRun

NANOSECOND_MAGIC = 0xA1B23C4D
ETHERNET = 1
ANSWER = b"HTTP/1.1 200"
TRIPLES = 50
SETTLE_S = 0.2


@dataclass(frozen=True)
class Sighting:
    """A segment that begins an answer. realtime_ns: when the kernel saw it; source: who sent it."""

    realtime_ns: int
    source: tuple[str, int]


@dataclass(frozen=True)
class Offset:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, at a monotonic instant; right to within bound_ns."""

    at_ns: int
    offset_ns: int
    bound_ns: int


def offset() -> Offset:
    """The tightest of TRIPLES samples."""
    triples = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(TRIPLES)]
    before, real, after = min(triples, key=lambda triple: triple[2] - triple[0])
    return Offset((before + after) // 2, real - (before + after) // 2, (after - before + 1) // 2)


def monotonic_ns(realtime_ns: int, before: Offset, after: Offset) -> tuple[int, int]:
    """A realtime stamp taken between the two, on the monotonic clock; and by how much that may be wrong."""
    moved = after.offset_ns - before.offset_ns
    share = (realtime_ns - before.offset_ns - before.at_ns) / (after.at_ns - before.at_ns)
    mapped = realtime_ns - before.offset_ns - round(moved * share)
    return mapped, max(before.bound_ns, after.bound_ns) + abs(moved)


@contextmanager
def capture(interface: str) -> Iterator[Path]:
    """The file it goes to; `settle` before reading it. NotRun if nothing can be captured."""
    program = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise NotRun("tcpdump is not installed (apt-get install tcpdump)")
    # Only segments with data: our own SYNs would keep tcpdump busy, and busy is what it must not make the machine.
    pushed = "tcp[tcpflags] & tcp-push != 0"
    argv = [
        program,
        "-i",
        interface,
        "--time-stamp-precision=nano",
        "--immediate-mode",
        "-nUw",
        "-",
        "-s",
        "160",
        pushed,
    ]
    with tempfile.NamedTemporaryFile(prefix="coldstart-bench-", suffix=".pcap") as file, _tcpdump(argv, file):
        yield Path(file.name)


def settle() -> None:
    """Let the last packet get from the kernel to the file."""
    time.sleep(SETTLE_S)


def interface_to(address: str) -> str:
    """The link behind which an IPv4 address of this machine is; the most specific route."""
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    routes = [(row[0], int(row[1], 16), int(row[7], 16)) for row in rows]
    matching = [(mask.bit_count(), name) for name, network, mask in routes if mask and number & mask == network]
    return max(matching, default=(0, "lo"))[1]  # the table of one's own addresses is another one


@contextmanager
def _tcpdump(argv: list[str], file: BinaryIO) -> Iterator[None]:
    # A session of its own: Ctrl-C is for us, we then end it in order.
    process = subprocess.Popen(argv, stdout=file, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _await_listening(process)
        yield
    finally:
        process.terminate()
        process.communicate()


def _await_listening(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    said = b""
    for line in process.stderr:  # ends when tcpdump does
        said = line.strip()
        if b"listening on" in line:
            return
    raise NotRun(said.decode("utf-8", "replace") or "tcpdump has ended")


def sightings(data: bytes) -> list[Sighting]:
    """Every segment of a capture that begins a good answer, in order."""
    magic, link = struct.unpack_from("=I16xI", data)
    if magic != NANOSECOND_MAGIC or link != ETHERNET:
        raise NotRun(f"not a nanosecond capture of Ethernet frames: {magic:#x}, link type {link}")
    found, at = [], 24
    while at + 16 <= len(data):
        seconds, nanoseconds, length = struct.unpack_from("=III", data, at)
        source = _answers(data[at + 16 : at + 16 + length])
        if source is not None:
            found.append(Sighting(seconds * 1_000_000_000 + nanoseconds, source))
        at += 16 + length
    return found


def _answers(frame: bytes) -> tuple[str, int] | None:
    """Who sent it, if it is an IPv4 TCP segment whose data is the beginning of a good answer."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    tcp = 14 + (frame[14] & 15) * 4
    if len(frame) < tcp + 20 or not frame[tcp + (frame[tcp + 12] >> 4) * 4 :].startswith(ANSWER):
        return None
    return ".".join(map(str, frame[26:30])), int.from_bytes(frame[tcp : tcp + 2], "big")
