"""The unikernel as it runs: in a plain QEMU, on a tap in a network of our own, with Linux as its peer."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from coldstart.workloads import build

pytestmark = pytest.mark.live

PATIENCE_SECONDS = 20.0
CLONE_NEWNET = 0x40000000
DOCS = Path(__file__).parents[2] / "docs" / "unikernel.md"
TAP, ADDRESS, MAC, PORT = "uk0", "10.77.0.2", "52:54:00:00:00:02", 8080
BODY = "Serverless Unikernels!\n"
KEEP = b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n"
QUIT_STATUS = {"x86_64": 33, "aarch64": 0}
FAILURE_STATUS = {"x86_64": 35, "aarch64": 0}


class Namespace:
    """A network of our own, for the thread that enters it; it is gone when nothing is in it any more."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._check(self._libc.unshare(CLONE_NEWNET))
        self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.__exit__()

    def __enter__(self) -> None:
        self._check(self._libc.setns(self._fd, CLONE_NEWNET))

    def __exit__(self, *_: object) -> None:
        self._check(self._libc.setns(self._home, CLONE_NEWNET))

    def run(self, command: str) -> str:
        with self:
            return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout

    def connect(self) -> socket.socket:
        with self:
            connection = socket.socket()
        connection.settimeout(PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((ADDRESS, PORT))
        return connection

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._home)

    def _check(self, result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass
class Guest:
    process: subprocess.Popen[bytes]
    said: bytes = b""

    def wait_for(self, text: bytes) -> None:
        """Until the console says so."""
        assert self.process.stdout
        while text not in self.said:
            assert select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0], f"said nothing but {self.said!r}"
            part = os.read(self.process.stdout.fileno(), 65536)
            assert part, f"ended after {self.said!r}"
            self.said += part

    def end(self) -> tuple[int, bytes]:
        """Its status, and what it said, once it has ended by itself."""
        rest, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, self.said + rest

    def cpu_ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[11]) + int(fields[12])


def reply(arch: str, status: str = "200 OK", body: str = BODY, *, nonce: str = "n1", kept: bool = False) -> bytes:
    """The whole answer, to the byte."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if kept else 'close'}\r\nX-Coldstart-Nonce: {nonce}\r\n"
        f"X-Coldstart-Kind: unikernel-{arch}\r\n\r\n{body}"
    ).encode()


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = connection.recv(count - len(got))
        assert part, f"closed after {got!r}"
        got += part
    return got


def documented(arch: str) -> list[str]:
    """The line of docs/unikernel.md that boots it."""
    (line,) = re.findall(rf"^qemu-system-{arch} .*$", DOCS.read_text(), re.MULTILINE)
    return shlex.split(line)


def command(arch: str, built: Path, *, words: str = "", memory: str = "8", machine: str = "") -> list[str]:
    """The documented line, on our tap."""
    argv = documented(arch)
    argv[argv.index("-kernel") + 1] = str(built / f"hello-unikernel.{arch}")
    argv[argv.index("-append") + 1] = f"COLDSTART_IP={ADDRESS}/24 COLDSTART_NONCE=n1 {words}"
    argv[argv.index("-m") + 1] = memory
    argv[argv.index("-M") + 1] += machine
    argv[argv.index("-netdev") + 1] = f"tap,id=net,ifname={TAP},script=no,downscript=no"
    argv[argv.index("virtio-net-device,netdev=net")] += f",mac={MAC}"
    return argv


@contextmanager
def running(argv: list[str], namespace: Namespace | None = None) -> Iterator[Guest]:
    with ExitStack() as stack:
        if namespace:
            stack.enter_context(namespace)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stack.close()
        with process:
            try:
                yield Guest(process)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build.build(out)
    return out


@contextmanager
def network_with_a_tap() -> Iterator[Namespace]:
    namespace = Namespace()
    namespace.run("ip link set lo up")
    namespace.run(f"ip tuntap add dev {TAP} mode tap")
    namespace.run(f"ip addr add 10.77.0.1/24 dev {TAP}")
    namespace.run(f"ip link set {TAP} up")
    namespace.run(f"ip neigh replace {ADDRESS} lladdr {MAC} dev {TAP} nud permanent")
    yield namespace
    namespace.close()


@pytest.fixture(scope="module", params=build.ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    """Where `guest` is."""
    with network_with_a_tap() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def guest(arch: str, built: Path, network: Namespace) -> Iterator[Guest]:
    """One for all tests that leave it as it was."""
    with running(command(arch, built), network) as guest:
        guest.wait_for(b"ready nonce=n1\n")
        yield guest


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Namespace]:
    """For guests that a test boots itself."""
    with network_with_a_tap() as namespace:
        yield namespace


@contextmanager
def sniffing(network: Namespace) -> Iterator[list[str]]:
    """What the guest sends up to its first FIN, as tcpdump tells it; filled in at the end."""
    lines: list[str] = []
    argv = ["tcpdump", "-i", TAP, "-vv", "-n", "-l", "--immediate-mode", "src", "host", ADDRESS]
    with network:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            assert process.stderr
            assert process.stdout
            assert any(b"listening on" in line for line in iter(process.stderr.readline, b""))
            yield lines
            while not any("Flags [F" in line for line in lines):
                assert select.select([process.stdout], [], [], PATIENCE_SECONDS)[0], lines
                lines += os.read(process.stdout.fileno(), 65536).decode().splitlines()
        finally:
            process.kill()


# --- what it answers ---


def test_a_thousand_connections(guest: Guest, network: Namespace, arch: str) -> None:
    for _ in range(1000):
        with network.connect() as connection:
            connection.sendall(CLOSE)
            assert everything(connection) == reply(arch)


def test_a_thousand_requests_on_one_connection(guest: Guest, network: Namespace, arch: str) -> None:
    right = reply(arch, kept=True)
    with network.connect() as connection:
        for _ in range(1000):
            connection.sendall(KEEP)
            assert exactly(connection, len(right)) == right


def test_four_at_once(guest: Guest, network: Namespace, arch: str) -> None:
    for _ in range(50):
        with ExitStack() as stack:
            connections = [stack.enter_context(network.connect()) for _ in range(4)]
            for connection in connections:
                connection.sendall(CLOSE)
            assert [everything(connection) for connection in connections] == [reply(arch)] * 4


def test_segments_of_one_byte(guest: Guest, network: Namespace, arch: str) -> None:
    with network.connect() as connection:
        for byte in CLOSE:
            connection.sendall(bytes([byte]))
        assert everything(connection) == reply(arch)


def test_pipelined_requests(guest: Guest, network: Namespace, arch: str) -> None:
    """More than it has room for; the last is for what is not there."""
    with network.connect() as connection:
        connection.sendall(KEEP * 200 + b"GET /x HTTP/1.0\r\n\r\n")
        right = reply(arch, kept=True) * 200 + reply(arch, "404 Not Found", "not found\n")
        assert everything(connection) == right


def test_half_closed(guest: Guest, network: Namespace, arch: str) -> None:
    with network.connect() as connection:
        connection.sendall(KEEP)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == reply(arch, kept=True)


def test_clients_that_leave_early(guest: Guest, network: Namespace, arch: str) -> None:
    """By a reset, before, during and after their request."""
    for request in (b"", b"GET", KEEP) * 30:
        with network.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request)
    with network.connect() as connection:
        connection.sendall(CLOSE)
        assert everything(connection) == reply(arch)


def test_silent_clients_hold_up_nobody(guest: Guest, network: Namespace, arch: str) -> None:
    with ExitStack() as stack:
        for _ in range(100):  # more than its table has room for
            stack.enter_context(network.connect())
        begin = time.monotonic()
        with network.connect() as connection:
            connection.sendall(CLOSE)
            assert everything(connection) == reply(arch)
        assert time.monotonic() - begin < 0.5


def test_loss(guest: Guest, network: Namespace, arch: str) -> None:
    """2 % both ways: everybody is answered all the same."""
    drop = "-m statistic --mode random --probability 0.02 -j DROP"
    network.run(f"iptables -A INPUT -i {TAP} {drop}")
    network.run(f"iptables -A OUTPUT -o {TAP} {drop}")

    def ask(kept: bool) -> bytes:
        with network.connect() as connection:
            got = b""
            for _ in range(20 * kept):
                connection.sendall(KEEP)
                got = exactly(connection, len(reply(arch, kept=True)))
            connection.sendall(CLOSE)
            return got + everything(connection)

    try:
        with ThreadPoolExecutor(32) as pool:
            once = list(pool.map(ask, [False] * 200))
            often = list(pool.map(ask, [True] * 32))
        counters = [network.run(f"iptables -nvxL {chain}").splitlines()[2].split()[0] for chain in ("INPUT", "OUTPUT")]
    finally:
        network.run("iptables -F")
    assert once == [reply(arch)] * 200
    assert often == [reply(arch, kept=True) + reply(arch)] * 32
    assert all(int(dropped) > 0 for dropped in counters)


def ping(network: Namespace, data: bytes) -> bytes:
    """What comes back with the answer."""
    with network, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(PATIENCE_SECONDS)
        raw.sendto(b"\x08\0\xf7\xff\0\0\0\0" + data, (ADDRESS, 0))  # the checksum of nothing but zeros behind it
        return raw.recv(2048)[28:]


def test_checksums(guest: Guest, network: Namespace, arch: str) -> None:
    """As tcpdump sees them, of segments of every kind and of a ping's answer."""
    with sniffing(network) as lines:
        assert ping(network, bytes(1001)) == bytes(1001)
        with network.connect() as connection:
            connection.sendall(KEEP * 3 + b"GET /x HTTP/1.0\r\n\r\n")
            everything(connection)
    told = "\n".join(lines)
    assert "ICMP echo reply" in told
    assert told.count("(correct)") >= 5, told
    assert not re.search(r"incorrect|bad|wrong|truncated", told), told


# --- what it costs ---


def test_idle(guest: Guest) -> None:
    """At most 2 ticks of a hundred in a second."""
    begin = guest.cpu_ticks()
    time.sleep(1)
    assert guest.cpu_ticks() - begin <= 2


# --- how it ends ---


def test_as_documented(arch: str, built: Path) -> None:
    """The very line of the docs, user-mode networking included."""
    argv = documented(arch)
    argv[argv.index("-kernel") + 1] = str(built / argv[argv.index("-kernel") + 1])
    with running(argv) as guest:
        guest.wait_for(b"COLDSTART boot\n")
        guest.wait_for(b"COLDSTART ready nonce=n1\n")
        with socket.create_connection(("127.0.0.1", PORT), PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET /quit HTTP/1.1\r\n\r\n")
            assert everything(connection) == reply(arch, body="good bye!\n")
        assert guest.end() == (QUIT_STATUS[arch], b"COLDSTART boot\nCOLDSTART ready nonce=n1\n")


def test_quit(built: Path, elsewhere: Namespace, arch: str) -> None:
    """On every interrupt controller, and at rest until then."""
    for machine in {"x86_64": ("", ",acpi=on"), "aarch64": (",gic-version=2", ",gic-version=3")}[arch]:
        with running(command(arch, built, machine=machine), elsewhere) as guest:
            guest.wait_for(b"ready nonce=n1\n")
            begin = guest.cpu_ticks()
            time.sleep(0.5)
            assert guest.cpu_ticks() - begin <= 2
            with elsewhere.connect() as connection:
                connection.sendall(b"GET /quit HTTP/1.1\r\n\r\n")
                assert everything(connection) == reply(arch, body="good bye!\n")
            assert guest.end()[0] == QUIT_STATUS[arch]


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("legacy", ["off", "on"])
def test_on_a_pc(built: Path, elsewhere: Namespace, machine: str, legacy: str) -> None:
    """The same file, with a device on PCI; a transitional one is taken for what it also is, a modern one."""
    argv = command("x86_64", built)
    argv[argv.index("-M") + 1] = machine
    argv[argv.index("-device", argv.index("-netdev")) + 1] = (
        f"virtio-net-pci,netdev=net,mac={MAC},disable-legacy={legacy}"
    )
    with running(argv, elsewhere) as guest:
        guest.wait_for(b"ready nonce=n1\n")
        for _ in range(100):
            with elsewhere.connect() as connection:
                connection.sendall(CLOSE)
                assert everything(connection) == reply("x86_64")
        begin = guest.cpu_ticks()
        time.sleep(0.5)
        assert guest.cpu_ticks() - begin <= 2
        with elsewhere.connect() as connection:
            connection.sendall(b"GET /quit HTTP/1.1\r\n\r\n")
            assert everything(connection) == reply("x86_64", body="good bye!\n")
        assert guest.end()[0] == QUIT_STATUS["x86_64"]


def test_without_a_console(built: Path, elsewhere: Namespace, arch: str) -> None:
    """Silent, and as quick to answer: whoever cannot wait for its word tries again and again."""
    argv = command(arch, built)
    argv[argv.index("-serial") + 1] = "none"
    argv[argv.index("-M") + 1] = argv[argv.index("-M") + 1].replace("isa-serial=on", "isa-serial=off")
    with running(argv, elsewhere) as guest:
        deadline = time.monotonic() + PATIENCE_SECONDS
        answer = b""
        while not answer:
            assert time.monotonic() < deadline
            answer = impatient(elsewhere, b"GET /quit HTTP/1.1\r\n\r\n")
        assert answer == reply(arch, body="good bye!\n")
        assert guest.end() == (QUIT_STATUS[arch], b"")


def impatient(network: Namespace, request: bytes) -> bytes:
    """The answer, or nothing after 20 ms: SYNs pile up where nobody is yet."""
    with network:
        connection = socket.socket()
    with connection:
        connection.settimeout(0.02)
        try:
            connection.connect((ADDRESS, PORT))
            connection.settimeout(PATIENCE_SECONDS)
            connection.sendall(request)
            return everything(connection)
        except OSError:
            return b""


def test_too_little_memory(built: Path, elsewhere: Namespace) -> None:
    with running(command("x86_64", built, memory="1280k"), elsewhere) as guest:
        assert guest.end() == (FAILURE_STATUS["x86_64"], b"COLDSTART boot\nCOLDSTART failed no-memory\n")


def test_no_network_device(built: Path, elsewhere: Namespace, arch: str) -> None:
    """The old register layout is none."""
    argv = command(arch, built)
    argv[argv.index("virtio-mmio.force-legacy=false")] = "virtio-mmio.force-legacy=true"
    with running(argv, elsewhere) as guest:
        assert guest.end() == (FAILURE_STATUS[arch], b"COLDSTART boot\nCOLDSTART failed no-virtio-net\n")


# --- faults on purpose ---


def test_fault_exit(built: Path, elsewhere: Namespace, arch: str) -> None:
    with running(command(arch, built, words="COLDSTART_FAULT=exit:5"), elsewhere) as guest:
        assert guest.end() == (11 if arch == "x86_64" else 0, b"COLDSTART boot\n")


def test_fault_reboot(built: Path, elsewhere: Namespace, arch: str) -> None:
    """Again and again, and with all of its memory as it was the first time."""
    argv = command(arch, built, words="COLDSTART_FAULT=reboot")
    argv.remove("-no-reboot")
    with running(argv, elsewhere) as guest:
        guest.wait_for(b"COLDSTART boot\n" * 3)
    with running(command(arch, built, words="COLDSTART_FAULT=reboot"), elsewhere) as guest:
        assert guest.end() == (0, b"COLDSTART boot\n")


def test_fault_panic(built: Path, elsewhere: Namespace, arch: str) -> None:
    """It stays there, and rests."""
    with running(command(arch, built, words="COLDSTART_FAULT=panic"), elsewhere) as guest:
        guest.wait_for(b"COLDSTART panic: fault=panic\n")
        begin = guest.cpu_ticks()
        time.sleep(0.5)
        assert guest.cpu_ticks() - begin <= 2
        assert guest.process.poll() is None


def test_fault_deaf(built: Path, elsewhere: Namespace, arch: str) -> None:
    with running(command(arch, built, words="COLDSTART_FAULT=deaf"), elsewhere) as guest:
        guest.wait_for(b"COLDSTART boot\n")
        assert impatient(elsewhere, CLOSE) == b""
        assert guest.process.poll() is None
        assert guest.said == b"COLDSTART boot\n"


def test_fault_mute(built: Path, elsewhere: Namespace, arch: str) -> None:
    with running(command(arch, built, words="COLDSTART_FAULT=mute"), elsewhere) as guest:
        guest.wait_for(b"ready")
        with elsewhere.connect() as connection:
            connection.sendall(CLOSE)
            assert select.select([connection], [], [], 0.5)[0] == []


def test_fault_stale(built: Path, elsewhere: Namespace, arch: str) -> None:
    with running(command(arch, built, words="COLDSTART_FAULT=stale"), elsewhere) as guest:
        guest.wait_for(b"ready nonce=stale\n")
        with elsewhere.connect() as connection:
            connection.sendall(CLOSE)
            assert everything(connection) == reply(arch, nonce="stale")


def test_fault_delay(built: Path, elsewhere: Namespace, arch: str) -> None:
    with running(command(arch, built, words="COLDSTART_FAULT=delay:700"), elsewhere) as guest:
        guest.wait_for(b"COLDSTART boot\n")
        begin = time.monotonic()
        guest.wait_for(b"ready")
        assert 0.6 < time.monotonic() - begin < 5
