"""The reference workload, as it runs: bare on both architectures, in a real engine, and built anew elsewhere."""

from __future__ import annotations

import http.client
import json
import os
import platform
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from coldstart import archive, sources
from coldstart.workloads import build

pytestmark = pytest.mark.live

PATIENCE_SECONDS = 10.0
SOCKET = Path("/var/run/docker.sock")
BODY = "Serverless Unikernels!\n"
# ppoll, nanosleep, clock_nanosleep: by the host's numbers, for emulated programs, too.
SLEEPING = {"x86_64": ("271", "35", "230"), "aarch64": ("73", "101", "115")}
GET = b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n"
KEEP = b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n"


def wait_until(condition: Callable[[], Any]) -> Any:
    """Its first true value, or the test fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    return pytest.fail(f"not within {PATIENCE_SECONDS} s")


@dataclass(frozen=True)
class Hello:
    """A running program."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def ask(self, request: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(request)
            return everything(connection)

    def wait_for_line(self) -> str:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0], "nothing on stdout"
        return self.process.stdout.readline()

    def wait_for_state(self, states: str) -> None:
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(") ")[2][0] in states)

    def wait_for_sleep(self) -> None:
        """Until it does what `deaf` and `delay` do; its state alone would not tell it from an emulator's start."""
        call = Path(f"/proc/{self.process.pid}/syscall")
        wait_until(lambda: call.read_text().split()[0] in SLEEPING[platform.machine()])


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def reply(
    arch: str, status: str = "200 OK", body: str = BODY, *, nonce: str = "n1", headers: str = "", kept: bool = False
) -> bytes:
    """The whole answer, to the byte."""
    connection = "keep-alive" if kept else "close"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {connection}\r\nX-Coldstart-Nonce: {nonce}\r\nX-Coldstart-Kind: linux-{arch}\r\n"
        f"{headers}\r\n{body}"
    ).encode()


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes of what comes, and the connection stays open."""
    got = b""
    while len(got) < count:
        part = connection.recv(count - len(got))
        assert part, f"closed after {got!r}"
        got += part
    return got


Start = Callable[..., AbstractContextManager[Hello]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build.build(out)
    return out


@pytest.fixture(params=build.ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(built: Path, arch: str) -> Start:
    """Run it, natively or emulated; the environment holds nothing but what the test says."""
    argv = [str(built / f"hello.{arch}")]
    if platform.machine() != arch:
        emulator = shutil.which(f"qemu-{arch}") or shutil.which(f"qemu-{arch}-static")
        if emulator is None:
            pytest.skip(f"no qemu-{arch} here: apt-get install qemu-user")
        argv = [emulator, *argv]

    @contextmanager
    def start(*, ready: bool = True, **env: str) -> Iterator[Hello]:
        port = free_port()
        env = {"COLDSTART_PORT": str(port), **env}
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                hello = Hello(process, port)
                if ready:
                    assert hello.wait_for_line() == "COLDSTART ready\n"
                yield hello
            finally:
                process.kill()

    return start


# --- what it answers ---


def test_answers_with_its_nonce(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="n1") as hello:
        assert hello.ask(GET) == reply(arch)
        assert hello.ask(b"GET /?a=b HTTP/1.1\r\nConnection: close\r\n\r\n") == reply(arch)


def test_defaults(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="") as hello:
        assert hello.ask(b"GET / HTTP/1.0\n\n") == reply(arch, nonce="none")


def test_other_path(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="n1") as hello:
        request = b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"
        assert hello.ask(request) == reply(arch, "404 Not Found", "not found\n")


@pytest.mark.parametrize("body_bytes", [0, 300_000])
def test_other_method(start: Start, arch: str, body_bytes: int) -> None:
    """The answer arrives whole although a body is still under way."""
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % body_bytes + bytes(body_bytes)
    with start(COLDSTART_NONCE="n1") as hello:
        right = reply(arch, "405 Method Not Allowed", "only GET here\n", headers="Allow: GET\r\n")
        assert hello.ask(request) == right


@pytest.mark.parametrize("size", [2048, 300_000])
def test_too_large(start: Start, arch: str, size: int) -> None:
    with start(COLDSTART_NONCE="n1") as hello:
        right = reply(arch, "431 Request Header Fields Too Large", "request too large\n")
        assert hello.ask(b"GET / HTTP/1.1\r\nX: ".ljust(size, b"x")) == right


def test_largest_request(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="n1") as hello:
        assert hello.ask(b"GET / HTTP/1.0\r\nX: ".ljust(2044, b"x") + b"\r\n\r\n") == reply(arch)


def test_request_in_segments_of_one_byte(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="n1") as hello, hello.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET:
            connection.sendall(bytes([byte]))
        assert everything(connection) == reply(arch)


@pytest.mark.parametrize("nonce", ["a\r\nX-Evil: 1", "\x1b[31m\x7fé", "0123456789" * 10])
def test_nonce_cannot_break_the_header(start: Start, arch: str, nonce: str) -> None:
    clean = "".join(c for c in nonce if " " <= c <= "~")[:64]
    with start(COLDSTART_NONCE=nonce) as hello:
        assert hello.ask(GET) == reply(arch, nonce=clean)


# --- many requests, one connection ---


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1", True),
        (b"HTTP/1.1\r\nHost: x", True),
        (b"HTTP/1.1\r\ncOnNeCtIoN: Close", False),
        (b"HTTP/1.1\r\nConnection: TE, close", False),
        (b"HTTP/1.1\r\nX-Connection: close", True),
        (b"HTTP/1.0", False),
        (b"HTTP/1.0\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.0\r\nConnection: keep-alive, close", False),
        (b"HTTP/1.1\r\nContent-Length: 0", True),
        (b"HTTP/1.1\r\ncontent-length: 20", False),
        (b"HTTP/1.1\r\nContent-Length: 000x", False),
        (b"HTTP/1.1\r\nTransfer-Encoding: chunked", False),
    ],
)
def test_who_closes(start: Start, arch: str, head: bytes, kept: bool) -> None:
    """What stays open answers once more; what does not has said so."""
    with start(COLDSTART_NONCE="n1") as hello, hello.connect() as connection:
        connection.sendall(b"GET / " + head + b"\r\n\r\n")
        right = reply(arch, kept=kept)
        assert exactly(connection, len(right)) == right
        if kept:
            connection.sendall(GET)
            assert everything(connection) == reply(arch)
        else:
            assert everything(connection) == b""


def test_pipelined_requests(start: Start, arch: str) -> None:
    """More of them than the program can hold, in one go; and what was not asked for is not kept open."""
    with start(COLDSTART_NONCE="n1") as hello, hello.connect() as connection:
        connection.sendall(KEEP * 500 + b"GET /x HTTP/1.1\r\n\r\n\r\n" + GET + KEEP)
        answers = reply(arch, kept=True) * 500 + reply(arch, "404 Not Found", "not found\n", kept=True) + reply(arch)
        assert everything(connection) == answers


def test_client_that_asks_and_does_not_read(start: Start, arch: str) -> None:
    """Its answers wait until it does; others are not kept waiting."""
    count = 100_000
    with start(COLDSTART_NONCE="n1") as hello, socket.socket() as connection:
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)
        connection.connect(("127.0.0.1", hello.port))
        connection.settimeout(0)
        todo = memoryview(KEEP * count)
        while todo and select.select([], [connection], [], 0.3)[1]:
            todo = todo[connection.send(todo) :]
        assert todo, "the kernel took it all: nothing was held back"
        assert hello.ask(GET) == reply(arch)
        missing = count * len(reply(arch, kept=True))
        while missing:
            readable, writable, _ = select.select([connection], [connection] if todo else [], [], PATIENCE_SECONDS)
            assert readable or writable, f"{missing} bytes never came"
            if writable:
                todo = todo[connection.send(todo) :]
            if readable:
                missing -= len(connection.recv(1 << 20))


def test_half_closed(start: Start, arch: str) -> None:
    """Whoever has said all still gets the answers to it."""
    with start(COLDSTART_NONCE="n1") as hello, hello.connect() as connection:
        connection.sendall(KEEP * 2)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == reply(arch, kept=True) * 2


# --- who cannot disturb it ---


def test_silent_clients_hold_up_nobody(start: Start, arch: str) -> None:
    with start(COLDSTART_NONCE="n1") as hello, ExitStack() as stack:
        silent = [stack.enter_context(hello.connect()) for _ in range(20)]
        silent[7].sendall(KEEP[:5])
        begin = time.monotonic()
        assert hello.ask(GET) == reply(arch)
        assert time.monotonic() - begin < 0.5
        silent[7].sendall(KEEP[5:])
        assert exactly(silent[7], len(reply(arch, kept=True))) == reply(arch, kept=True)


def test_the_longest_silent_one_makes_room(start: Start, arch: str) -> None:
    """There is room for 64: the 65th takes the place of the one that was not heard of for longest."""
    with start(COLDSTART_NONCE="n1") as hello, ExitStack() as stack:
        clients = [stack.enter_context(hello.connect()) for _ in range(64)]
        for client in (clients[0], clients[63]):
            client.sendall(KEEP)
            assert exactly(client, len(reply(arch, kept=True))) == reply(arch, kept=True)
        assert hello.ask(GET) == reply(arch)
        assert everything(clients[1]) == b""
        assert select.select([clients[0], *clients[2:]], [], [], 0)[0] == []


def test_clients_that_leave_early(start: Start, arch: str) -> None:
    """A reset while the answer is being written is no reason to end."""
    with start(COLDSTART_NONCE="n1") as hello:
        for request in (b"", b"GET", GET, b"POST / HTTP/1.1\r\n\r\n") * 25:
            with hello.connect() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request)
        assert hello.ask(GET) == reply(arch)


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
def test_interruption(start: Start, arch: str, begun: bytes) -> None:
    """Stopped and continued while it waits, for a client or for the rest of a request."""
    with start(COLDSTART_NONCE="n1") as hello, hello.connect() as connection:
        connection.sendall(begun)
        for _ in range(3):
            hello.process.send_signal(signal.SIGSTOP)
            hello.wait_for_state("T")
            hello.process.send_signal(signal.SIGCONT)
            hello.wait_for_state("SR")
        connection.sendall(GET[len(begun) :])
        assert everything(connection) == reply(arch)


# --- how it ends ---


def test_quit(start: Start, arch: str) -> None:
    """The answer arrives, whatever else is open, and then it ends."""
    with start(COLDSTART_NONCE="n1") as hello, hello.connect():
        assert hello.ask(b"GET /quit HTTP/1.1\r\n\r\n") == reply(arch, body="good bye!\n")
        assert hello.process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fault", ["", "deaf", "mute", "delay:60000"])
def test_signals_end_it(start: Start, number: signal.Signals, fault: str) -> None:
    with start(ready=fault in ("", "mute"), COLDSTART_FAULT=fault) as hello:
        if fault not in ("", "mute"):
            hello.wait_for_sleep()
        hello.process.send_signal(number)
        assert hello.process.wait(PATIENCE_SECONDS) == 0


def test_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start(ready=False, COLDSTART_PORT=str(port)) as hello:
            _, errors = hello.process.communicate(timeout=PATIENCE_SECONDS)
            assert errors == f"hello: cannot listen on port {port}: errno 98\n"
            assert hello.process.returncode == 98


@pytest.mark.parametrize("env", [{"COLDSTART_PORT": port} for port in ("0", "65536", "x")])
def test_bad_port(start: Start, env: dict[str, str]) -> None:
    with start(ready=False, **env) as hello:
        _, errors = hello.process.communicate(timeout=PATIENCE_SECONDS)
        assert errors == f"hello: COLDSTART_PORT={env['COLDSTART_PORT']}: not a port; 1 to 65535\n"
        assert hello.process.returncode == 2


# --- faults on purpose ---


def test_fault_delay(start: Start, arch: str) -> None:
    begin = time.monotonic()
    with start(COLDSTART_FAULT="delay:1200", COLDSTART_NONCE="n1") as hello:
        assert time.monotonic() - begin >= 1.2
        assert hello.ask(GET) == reply(arch)


def test_fault_deaf(start: Start) -> None:
    with start(ready=False, COLDSTART_FAULT="deaf") as hello:
        hello.wait_for_sleep()
        with pytest.raises(ConnectionRefusedError):
            hello.connect()
        assert hello.process.poll() is None


def test_fault_mute(start: Start) -> None:
    """Both connections are accepted, and neither is answered or closed, though a second and more go by."""
    with start(COLDSTART_FAULT="mute") as hello, hello.connect() as first, hello.connect() as second:
        first.sendall(GET)
        second.sendall(GET)
        assert select.select([first, second], [], [], 1.5)[0] == []


@pytest.mark.parametrize("code", [0, 7, 255])
def test_fault_exit(start: Start, code: int) -> None:
    with start(ready=False, COLDSTART_FAULT=f"exit:{code}") as hello:
        assert hello.process.communicate(timeout=PATIENCE_SECONDS) == ("", "")
        assert hello.process.returncode == code


def test_fault_stale(start: Start, arch: str) -> None:
    with start(COLDSTART_FAULT="stale", COLDSTART_NONCE="n1") as hello:
        assert hello.ask(GET) == reply(arch, nonce="stale")


@pytest.mark.parametrize("fault", ["nonsense", "deafer", "delay", "delay:", "delay:1s", "exit:256", "exit:-1"])
def test_unknown_fault(start: Start, fault: str) -> None:
    with start(ready=False, COLDSTART_FAULT=fault) as hello:
        _, errors = hello.process.communicate(timeout=PATIENCE_SECONDS)
        right = f"hello: COLDSTART_FAULT={fault}: unknown; delay:MS, deaf, mute, exit:CODE or stale\n"
        assert (hello.process.returncode, errors) == (2, right)


# --- the build ---


def test_same_bytes_wherever_it_is_built(tmp_path: Path, built: Path) -> None:
    """From a copy of the sources in a folder of another name, by another path, with none of our caches."""
    copy = tmp_path / "a differently named folder"
    shutil.copytree(
        build.HELLO.parent.parent, copy / "coldstart", ignore=shutil.ignore_patterns("built", "__pycache__")
    )
    argv = [sys.executable, "-m", "coldstart.workloads.build", "--out", "out"]
    done = subprocess.run(argv, cwd=copy, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (copy / "out").iterdir()} == {*build.names(), build.STAMP}
    for name in build.names():
        data = (copy / "out" / name).read_bytes()
        assert data == (built / name).read_bytes()
        assert str(copy).encode() not in data
        assert str(build.HELLO).encode() not in data


@pytest.mark.parametrize("name", build.ARCHITECTURES)
def test_starts_on_kernels_with_large_pages(built: Path, name: str) -> None:
    """Raspberry Pi 5 has pages of 16 KiB, some servers of 64: no two segments of the aarch64 one share such a page."""
    data = (built / f"hello.{name}").read_bytes()
    at, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    headers = [struct.unpack_from("<IIQQQQQQ", data, at + 56 * index) for index in range(count)]
    page = 0x10000 if name == "aarch64" else 0x1000
    loads = [(start // page, (start + size - 1) // page) for kind, _, _, start, _, _, size, _ in headers if kind == 1]
    assert all(last < first for (_, last), (first, _) in pairwise(loads))


# --- in an engine ---


class Engine:
    """The Engine API over its socket, as far as a test needs it."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("engine", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(SOCKET))
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"Content-Type": kind} if data else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.call(method, path, body)
        assert status < 300, answer
        return json.loads(answer) if answer else None


@pytest.fixture
def engine(engine: str) -> Engine:
    return Engine()


@contextmanager
def loaded(engine: Engine, path: Path) -> Iterator[Any]:
    """The image as the engine describes it; removed afterwards unless it was there before."""
    (tag,) = sources.read(path, path.name.split(".")[1]).tags
    was_there = engine.call("GET", f"/images/{tag}/json")[0] == 200
    assert tag.encode() in engine.call("POST", "/images/load?quiet=1", path.read_bytes())[1]
    try:
        yield engine.json("GET", f"/images/{tag}/json")
    finally:
        if not was_there:
            engine.call("DELETE", f"/images/{tag}")


def test_engine_takes_the_image(engine: Engine, built: Path, arch: str) -> None:
    path = built / f"hello.{arch}.docker.tar"
    with loaded(engine, path) as image:
        assert image["Architecture"] == archive.ENGINE_ARCH[arch]
        assert image["Config"]["Labels"] == {"coldstart.image": "hello"}
        assert image["Config"]["User"] == "65534"
        assert image["RootFS"]["Layers"] == [f"sha256:{layer_digest(path)}"]


def layer_digest(path: Path) -> str:
    done = subprocess.run(["tar", "-xOf", str(path), "manifest.json"], capture_output=True, check=True)
    name: str = json.loads(done.stdout)[0]["Layers"][0]
    return name.rpartition("/")[2]


def test_runs_in_a_container(engine: Engine, built: Path) -> None:
    """As PID 1, as nobody, and SIGTERM ends it at once."""
    arch = platform.machine()
    with loaded(engine, built / f"hello.{arch}.docker.tar") as image:
        settings = {
            "Image": image["RepoTags"][0],
            "Env": ["COLDSTART_NONCE=n1"],
            "Labels": {"coldstart.run": "test-hello"},
            "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
        }
        container = engine.json("POST", "/containers/create", settings)["Id"]
        try:
            engine.json("POST", f"/containers/{container}/start")
            ports = engine.json("GET", f"/containers/{container}/json")["NetworkSettings"]["Ports"]
            port = int(ports["8080/tcp"][0]["HostPort"])
            assert wait_until(lambda: answer_of(port)) == reply(arch)
            engine.json("POST", f"/containers/{container}/stop?t=60")
            state = engine.json("GET", f"/containers/{container}/json")["State"]
            assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        finally:
            engine.call("DELETE", f"/containers/{container}?force=1")


def answer_of(port: int) -> bytes:
    """Nothing while the engine's proxy is there and the workload is not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(GET)
            return everything(connection)
    except OSError:
        return b""
