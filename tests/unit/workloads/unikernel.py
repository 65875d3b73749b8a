"""The unikernel's network code, called from here, and frames for it: made and checked without any code of its own."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from coldstart.workloads import build

NATIVE = Path(__file__).parent / "native" / "link.c"
SOURCES = [NATIVE, *(build.WORKLOADS / "unikernel" / f"{name}.c" for name in ("net", "options", "devicetree"))]
FLAGS = (
    *("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fno-builtin"),
    *("-shared", "-fPIC", "-nostdlib", "-fsanitize=undefined", "-fsanitize-trap=undefined"),
)

PAGE = 1 << 16  # a multiple of every machine's
MAC = bytes.fromhex("5254000000aa")
PEER_MAC = bytes.fromhex("5254000000bb")
ADDRESS = 0x0A4D0002
PEER = 0x0A4D0001
PORT = 8080
MAX_FRAME = 1514
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
BODY = "Serverless Unikernels!\n"


def compile_library(scratch: Path) -> Path:
    """Fails, and says why, where it cannot be compiled."""
    library = scratch / "unikernel.so"
    argv = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{build.HELLO}", f"-I{build.WORKLOADS / 'unikernel'}"]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(scratch / "zig"), "ZIG_LOCAL_CACHE_DIR": str(scratch / "zig")}
    sources = [*SOURCES, build.HELLO / "http.c"]
    done = subprocess.run(
        [*argv, *map(str, sources), "-o", str(library)], env={**os.environ, **caches}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return library


class Guarded:
    """Memory that ends where a page begins that nobody may touch: one byte too far is a crash."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        start = libc.mmap(None, 2 * PAGE, 3, 0x22, -1, 0)
        assert libc.mprotect(start + PAGE, PAGE, 0) == 0
        self.end = start + PAGE

    def put(self, data: bytes) -> int:
        """Its address: the last byte is the last that may be read."""
        ctypes.memmove(self.end - len(data), data, len(data))
        return int(self.end - len(data))


class Machine:
    """A unikernel that has just started."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.native_sent.restype = ctypes.POINTER(ctypes.c_uint8)
        library.native_input.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.native_start.argtypes = [ctypes.c_void_p, *[ctypes.c_char_p], *[ctypes.c_uint32] * 3]
        self._in, self._out = Guarded(), Guarded()
        self.start()

    def start(self, *, mute: bool = False, isn: int = 0xFFFFFFF0) -> None:
        """As if for the first time. isn: of its connections; by default it overflows at once."""
        self.isn = isn
        self.library.native_start(self._out.end - MAX_FRAME, MAC, ADDRESS, mute, isn)

    def frames(self, frame: bytes) -> list[bytes]:
        """What it answers, whatever that is."""
        return self._sent(self.library.native_input(self._in.put(frame), len(frame)))

    def segments(self, frame: bytes) -> list[Segment]:
        """What it answers, all of which must be right."""
        return [parse(each) for each in self.frames(frame)]

    def announce(self) -> list[bytes]:
        return self._sent(self.library.native_announce())

    @property
    def quit(self) -> bool:
        return bool(self.library.native_quit())

    @property
    def connections(self) -> int:
        return int(self.library.native_connections())

    def _sent(self, count: int) -> list[bytes]:
        length = ctypes.c_uint()
        sent = []
        for index in range(count):
            frame = self.library.native_sent(index, ctypes.byref(length))
            sent.append(ctypes.string_at(frame, length.value))
        return sent


@dataclass(frozen=True)
class Segment:
    """TCP, either way."""

    port: int
    seq: int
    ack: int
    flags: int
    window: int
    data: bytes
    options: bytes = b""

    @property
    def extent(self) -> int:
        return len(self.data) + bool(self.flags & SYN) + bool(self.flags & FIN)


def checksum(data: bytes) -> int:
    """RFC 1071; 0 for data that holds its own, right one."""
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def pseudo(source: int, target: int, length: int) -> bytes:
    return struct.pack(">IIHH", source, target, 6, length)


def ip(payload: bytes, protocol: int, *, source: int = PEER, target: int = ADDRESS, options: bytes = b"") -> bytes:
    """An Ethernet frame."""
    size = 20 + len(options)
    head = struct.pack(">BBHHHBBHII", 0x40 | size // 4, 0, size + len(payload), 7, 0, 64, protocol, 0, source, target)
    head += options
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return MAC + PEER_MAC + b"\x08\x00" + head + payload


def tcp(segment: Segment, *, source: int = PEER, target_port: int = PORT) -> bytes:
    """An Ethernet frame with it."""
    head = struct.pack(
        ">HHIIBBHHH",
        *(segment.port, target_port, segment.seq & 0xFFFFFFFF, segment.ack & 0xFFFFFFFF),
        *((5 + len(segment.options) // 4) << 4, segment.flags, segment.window, 0, 0),
    )
    data = head + segment.options + segment.data
    right = checksum(pseudo(source, ADDRESS, len(data)) + data)
    return ip(data[:16] + struct.pack(">H", right) + data[18:], 6, source=source)


def payload_of(frame: bytes, protocol: int, target: int = PEER) -> bytes:
    """Of a frame the unikernel sent, which must be right in every field."""
    assert frame[:14] == PEER_MAC + MAC + b"\x08\x00"
    assert 60 <= len(frame) <= MAX_FRAME
    version, _, total, _, fragment, hops, kind, _, source, destination = struct.unpack(">BBHHHBBHII", frame[14:34])
    assert (version, fragment, kind, source, destination) == (0x45, 0x4000, protocol, ADDRESS, target)
    assert hops
    assert checksum(frame[14:34]) == 0
    assert len(frame) == max(60, 14 + total)
    return frame[34 : 14 + total]


def parse(frame: bytes) -> Segment:
    """A segment it sent, which must be right in every field."""
    target = struct.unpack(">I", frame[30:34])[0]
    data = payload_of(frame, 6, target)
    assert checksum(pseudo(ADDRESS, target, len(data)) + data) == 0
    _, port, seq, ack, offset, flags, window, _, urgent = struct.unpack(">HHIIBBHHH", data[:20])
    assert urgent == 0
    size = (offset >> 4) * 4
    assert 20 <= size <= len(data)
    return Segment(port, seq, ack, flags, window, data[size:], data[20:size])


def reply(status: str = "200 OK", body: str = BODY, *, kept: bool = True, headers: str = "") -> bytes:
    """The whole answer, to the byte."""
    connection = "keep-alive" if kept else "close"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {connection}\r\nX-Coldstart-Nonce: n1\r\n"
        f"X-Coldstart-Kind: unikernel-{platform.machine()}\r\n{headers}\r\n{body}"
    ).encode()
