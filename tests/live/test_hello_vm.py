"""The Linux VM boots: emulated, on both architectures, with the kernels scripts/setup.sh brings, by plain QEMU."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldstart.workloads import build, kernels, linuxvm
from coldstart.workloads.linuxvm import LinuxVm

pytestmark = pytest.mark.live

SWITCHED_OFF = -signal.SIGINT  # what a PID namespace makes of it
NOBODY = "65534:65534"
PATIENCE_SECONDS = 60.0  # an idle machine needs 2 to 4
# cryptomgr.notests and ipv6.disable leave out work that a server for IPv4 has no use for; panic=-1 restarts at once,
# and -no-reboot makes that QEMU's end.
COMMON = "quiet panic=-1 cryptomgr.notests ipv6.disable=1"
MACHINES = {
    "x86_64": (("-M", "q35"), "ttyS0"),
    "aarch64": (("-M", "virt", "-cpu", "cortex-a72"), "ttyAMA0"),
}
ADDRESS = "COLDSTART_IP=10.0.2.15/24 COLDSTART_GATEWAY=10.0.2.2"


@pytest.fixture(scope="module", params=build.ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def vm(arch: str, tmp_path_factory: pytest.TempPathFactory) -> LinuxVm:
    out = tmp_path_factory.mktemp("vm")
    build.build(out)
    program, init = ((out / f"{name}.{arch}").read_bytes() for name in ("hello", "hello-vm-init"))
    return linuxvm.build(arch, out=out, program=program, init=init, kernel=kernels.find(arch))


def argv(arch: str, vm: LinuxVm, environment: str, *more: str) -> list[str]:
    machine, console = MACHINES[arch]
    return [
        *(f"qemu-system-{arch}", "-accel", "tcg", *machine, "-m", "128", "-no-reboot"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"),
        *("-kernel", str(vm.kernel), "-initrd", str(vm.initrd)),
        *("-append", f"console={console} {COMMON} {environment}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *more,
    ]


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """What it writes, until that is in it; all of it, if it ends."""
    assert process.stdout
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen = b""
    while wanted not in seen:
        if not select.select([process.stdout], [], [], deadline - time.monotonic())[0]:
            pytest.fail(f"no {wanted!r} within {PATIENCE_SECONDS} s: {seen!r}")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        seen += piece
    return seen


def end_of(arch: str, vm: LinuxVm, environment: str, tmp_path: Path) -> tuple[int, str, str]:
    """QEMU's exit code, what the guest did to end it, and what was on its console."""
    console = tmp_path / "console"
    network = ("-netdev", "user,id=net,restrict=on")
    with running(argv(arch, vm, environment, *network, "-serial", f"file:{console}", "-qmp", "stdio")) as qemu:
        assert qemu.stdin
        qemu.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        qemu.stdin.flush()
        lines = [json.loads(line) for line in read_until(qemu, b"nothing: to its end").splitlines()]
        code = qemu.wait(PATIENCE_SECONDS)
    reasons = [line["data"]["reason"] for line in lines if line.get("event") == "SHUTDOWN"]
    return code, reasons[0] if reasons else "", console.read_text()


def test_answers_with_its_nonce(arch: str, vm: LinuxVm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network = ("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8080")
    environment = f"{ADDRESS} COLDSTART_NONCE=a.1-b"
    with running(argv(arch, vm, environment, *network, "-serial", "stdio")) as qemu:
        console = read_until(qemu, b"COLDSTART ready\r\n")
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert console.count(b"COLDSTART boot\r\n") == 1
    assert b"COLDSTART failed" not in console
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nX-Coldstart-Nonce: a.1-b\r\n" in answer
    assert f"\r\nX-Coldstart-Kind: linux-{arch}\r\n".encode() in answer
    assert answer.endswith(b"\r\n\r\nServerless Unikernels!\n")


@pytest.mark.parametrize(
    ("fault", "did", "said"),
    [
        ("panic", "guest-reset", "Kernel panic - not syncing: Attempted to kill init!"),
        ("reboot", "guest-reset", "COLDSTART boot\n"),
        ("poweroff", "guest-shutdown", "COLDSTART boot\n"),
    ],
)
def test_ends_as_it_is_told(arch: str, vm: LinuxVm, tmp_path: Path, fault: str, did: str, said: str) -> None:
    code, reason, console = end_of(arch, vm, f"{ADDRESS} COLDSTART_FAULT={fault}", tmp_path)
    assert (code, reason) == (0, did)
    assert said in console
    assert console.count("COLDSTART boot\n") == 1
    assert ("panic" in console) == (fault == "panic")


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ("", "COLDSTART_IP is not ADDRESS/PREFIX: "),
        ("COLDSTART_IP=10.0.2.15/24 COLDSTART_GATEWAY=10.9.9.9", "route by 10.9.9.9: errno 101"),
    ],
)
def test_says_why_it_gives_up(arch: str, vm: LinuxVm, tmp_path: Path, environment: str, why: str) -> None:
    code, reason, console = end_of(arch, vm, environment, tmp_path)
    assert (code, reason) == (0, "guest-shutdown")
    assert f"COLDSTART failed {why}\n" in console


# --- what starts the workload, without a machine: PID 1 of namespaces, where to switch off is to end ---


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("root")
    build.build(out)
    (out / f"hello-vm-init.{platform.machine()}").rename(out / "init")
    return out / "init"


def as_pid_1(init: Path, **env: str) -> tuple[int, str]:
    """Its end and its output; chroot: it must not find any /hello or /modules of this machine."""
    argv = ["unshare", "--pid", "--net", "--fork", "chroot", str(init.parent), "/init"]
    env = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "ip", ["10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.256/24", "10.0.0/24", "10.0.0.1/24x", "10..0.1/24", "a", " "]
)
def test_addresses_that_are_none(init: Path, ip: str) -> None:
    said = f"COLDSTART boot\nCOLDSTART failed COLDSTART_IP is not ADDRESS/PREFIX: {ip}\n"
    assert as_pid_1(init, COLDSTART_IP=ip) == (SWITCHED_OFF, said)


@pytest.mark.parametrize("ip", ["10.0.0.1/24", "255.255.255.255/32", "0.0.0.0/0"])
def test_without_a_network_card(init: Path, ip: str) -> None:
    said = "COLDSTART boot\nCOLDSTART failed interface eth0: errno 19\n"
    assert as_pid_1(init, COLDSTART_IP=ip) == (SWITCHED_OFF, said)


def test_a_module_that_is_missing(init: Path) -> None:
    order = init.parent / "modules" / "order"
    order.parent.mkdir()
    order.write_text("/modules/none.ko\n")
    try:
        code, said = as_pid_1(init, COLDSTART_IP="10.0.0.1/24")
    finally:
        order.unlink()
        order.parent.rmdir()
    assert (code, said) == (SWITCHED_OFF, "COLDSTART boot\nCOLDSTART failed module /modules/none.ko: errno 2\n")


def test_it_never_switches_off_the_machine_it_is_tried_on(init: Path) -> None:
    """Nor does this test, should it fail: it has no right to."""
    init.parent.chmod(0o755)
    argv = ["chroot", f"--userspec={NOBODY}", str(init.parent), "/init"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (2, "hello-vm-init: only for PID 1 of a virtual machine\n")
