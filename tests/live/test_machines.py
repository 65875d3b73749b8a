"""Machines, as users meet them: what is measured, what goes wrong, what is left. What QEMU is told: tests/unit."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, Coldstart, Machine, leftovers, poll

from coldstart import images
from coldstart.agent import launcher, netlink, ports, spawn, tap
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Prey
from coldstart.agent.qemu.options import Options
from coldstart.agent.records import Order, Ready
from coldstart.agent.runtimes import Context, qemu

pytestmark = pytest.mark.live

UNIKERNEL = "runtime: qemu, image: hello-unikernel, accel: tcg"
SIOCSIFFLAGS = 0x8914
HOPELESS_S = "3s"  # for what must never be ready; an emulated unikernel takes a tenth of a second


def target(more: str = "") -> str:
    return f"unikernel: {{{UNIKERNEL}{more and ', '}{more}}}"


def the_boot(coldstart: Coldstart, playbook: str, code: int = 0) -> dict[str, Any]:
    """The one boot of a sweep over `playbook`."""
    done = coldstart.sweep("--playbook", playbook)
    assert done.returncode == code, done.stderr
    (boot,) = coldstart.records()
    return boot


def one_boot(coldstart: Coldstart, more: str = "", *, code: int = 0, timeout: str = "20s") -> dict[str, Any]:
    return the_boot(coldstart, coldstart.playbook(target(more), "boots: 1, gap: 0s", timeout=timeout), code)


# --- what is measured ---


def test_a_unikernel_in_figures(coldstart: Coldstart) -> None:
    """Small, labelled, every mark in its order, nothing left."""
    playbook = coldstart.playbook(target("console: on"), "boots: 3, gap: 0s")
    done = coldstart.sweep("--playbook", playbook, "--format", "json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["boots"], cell["failed"]) == (3, 0)
    assert 0 < cell["image_bytes"] < 200_000
    assert cell["labels"]["accel"] == "tcg"
    assert {"machine", "net", "console"} < set(cell["labels"])
    assert {"guest", "tcp", "created"} <= set(cell["phases_seconds"])
    for boot in coldstart.records():
        marks = boot["marks_ns"]
        order = [marks[mark] for mark in ("created", "guest", "tcp", "ready", "stop", "gone", "reclaimed")]
        assert order == sorted(order)
        assert boot["memory_bytes"]["pss"] > 1 << 20


def test_the_table_says_what_the_processor_was(coldstart: Coldstart) -> None:
    """TCG and KVM are never mixed up: a label in every row, and a doubt in words."""
    done = coldstart.sweep("--playbook", coldstart.playbook(target(), "boots: 1, gap: 0s"))
    assert "accel=tcg" in done.stdout
    assert "the CPU was emulated (tcg)" in done.stdout


def test_kvm_is_used_where_it_works_and_only_there(coldstart: Coldstart) -> None:
    """Whatever this machine can do: `auto` and `kvm` agree, and a boot is never labelled otherwise than it ran."""
    done = coldstart.sweep("--playbook", coldstart.playbook("t: {runtime: qemu, image: hello-unikernel, accel: kvm}"))
    forced = done.returncode == 0
    assert forced or ("accel: kvm" in done.stderr or "KVM" in done.stderr or "/dev/kvm" in done.stderr)
    done = coldstart.sweep("--playbook", coldstart.playbook("t: {runtime: qemu, image: hello-unikernel}"))
    assert done.returncode == 0, done.stderr
    assert {boot["labels"]["accel"] for boot in coldstart.records()} == {"kvm" if forced else "tcg"}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("net", ["tap", "user"])
def test_either_architecture_on_either_network(coldstart: Coldstart, arch: str, net: str) -> None:
    """On any host; QEMU's own stack accepts for the guest, so only a tap device tells `tcp`."""
    boot = one_boot(coldstart, f"arch: {arch}, net: {net}")
    assert (boot["outcome"], boot["labels"]["net"]) == ("ok", net)
    assert ("tcp" in boot["marks_ns"]) == (net == "tap")


def test_fewer_boots_where_the_processor_is_emulated(coldstart: Coldstart) -> None:
    """It is said; `--boots` has the last word."""
    playbook = coldstart.playbook(target("boots_emulated: 2"), "boots: 4, gap: 0s")
    done = coldstart.sweep("--playbook", playbook)
    assert (done.returncode, len(coldstart.records())) == (0, 2)
    assert "2 boots of each kind, because the processor is emulated" in done.stderr
    assert coldstart.sweep("--playbook", playbook, "--boots", "3").returncode == 0
    assert len(coldstart.records()) == 3


# --- what lies ---


@pytest.mark.parametrize("net", ["tap", "user"])
def test_a_machine_that_never_runs_is_never_ready(coldstart: Coldstart, net: str) -> None:
    """QEMU's own stack accepts connections 65 ms after its start, even if the processor was never let go (-S)."""
    boot = one_boot(coldstart, f"net: {net}, qemu_args: [-S]", code=3, timeout=HOPELESS_S)
    assert boot["outcome"] == "timeout"
    assert not {"tcp", "ready"} & set(boot["marks_ns"])
    assert "reclaimed" in boot["marks_ns"]


def test_a_machine_that_never_runs_has_no_open_port(coldstart: Coldstart) -> None:
    """Likewise when a connection is all that is asked for."""
    boot = one_boot(coldstart, "qemu_args: [-S], ready: {tcp: {port: 8080}, timeout: 2s}", code=3)
    assert (boot["outcome"], "tcp" in boot["marks_ns"]) == ("timeout", False)


def test_a_lost_bridge_leads_to_nobody_else(coldstart: Coldstart) -> None:
    """Without it the default route would take our probes to strangers, who may well answer."""
    more = "env: {COLDSTART_FAULT: deaf}, ready: {tcp: {port: 8080}, timeout: 4s}"
    sweep = coldstart.start("--playbook", coldstart.playbook(target(more), "boots: 1, gap: 0s"))
    poll(lambda: qemus(sweep.run))
    (bridge,) = (name for name, alias in netlink.aliases().items() if alias == tap.ALIAS + sweep.run)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16s24x", bridge.encode()))  # down: its route is gone
    assert sweep.wait() == 3
    (boot,) = coldstart.records()
    assert (boot["outcome"], "tcp" in boot["marks_ns"]) == ("timeout", False)


def test_a_leftover_at_the_same_address_is_not_believed(coldstart: Coldstart) -> None:
    """Its nonce is another boot's."""
    boot = one_boot(coldstart, "env: {COLDSTART_NONCE: anothers}", code=3, timeout=HOPELESS_S)
    assert (boot["outcome"], "tcp" in boot["marks_ns"]) == ("timeout", True)


# --- what goes wrong ---


def test_faults_of_a_guest(coldstart: Coldstart) -> None:
    """Each a recorded outcome with its reason; a guest that comes to itself again (reboot) counts as ended."""
    faults = {
        "exits": "exit:3", "reboots": "reboot", "panics": "panic", "deaf": "deaf", "mute": "mute", "stale": "stale",
    }  # fmt: skip
    lines = (f"{name}: {{{UNIKERNEL}, console: on, env: {{COLDSTART_FAULT: '{f}'}}}}" for name, f in faults.items())
    playbook = coldstart.playbook("\n".join(lines), "boots: 1, gap: 0s", timeout=HOPELESS_S)
    done = coldstart.sweep("--playbook", playbook)
    assert done.returncode == 3, done.stderr
    seen = {boot["target"]: (boot["outcome"], boot["detail"]) for boot in coldstart.records()}
    assert seen["exits"][0] == "error:exited"
    assert "ended with code 7" in seen["exits"][1]  # (3 << 1) | 1, as isa-debug-exit says it
    assert seen["reboots"][0] == "error:exited"
    assert "code 0 (the guest switched off or was reset)" in seen["reboots"][1]
    assert {seen[name][0] for name in ("panics", "deaf", "mute", "stale")} == {"timeout"}


def test_too_little_memory(coldstart: Coldstart) -> None:
    """QEMU's own words, or the guest's."""
    boot = one_boot(coldstart, "arch: x86_64, memory: 1200KiB, console: on", code=3)
    assert boot["outcome"] == "error:exited"
    assert "no-memory" in boot["detail"]
    boot = one_boot(coldstart, "arch: aarch64, memory: 1MiB", code=3)
    assert boot["outcome"] == "error:exited"
    assert "Not enough space" in boot["detail"]


@pytest.mark.parametrize("more", ["machine: nosuch", "machine: nosuch, exit_codes: [1], ready: {exit: 1}"])
def test_an_option_that_qemu_refuses(coldstart: Coldstart, more: str) -> None:
    """Its message is the reason; and its exit code, which a guest's may look like, is not the guest's."""
    boot = one_boot(coldstart, more, code=3)
    assert boot["outcome"] == "error:exited"
    assert "unsupported machine type" in boot["detail"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("./text", "no kernel that QEMU could start"),
        ("{kernel: ./arm, arch: x86_64}", "a kernel for aarch64, but x86_64 is wanted"),
        ("{drive: ./empty}", "empty, not a disk"),
    ],
)
def test_a_wrong_file_is_not_sent(coldstart: Coldstart, image: str, words: str) -> None:
    """The target is skipped with the reason; nothing else was to be measured."""
    coldstart.write("text", "no kernel")
    coldstart.write("empty", "")
    (coldstart.folder / "arm").write_bytes(bytes(56) + b"ARM\x64" + bytes(64))
    done = coldstart.sweep("--playbook", coldstart.playbook(f"t: {{runtime: qemu, image: {image}}}"))
    assert done.returncode == 4
    assert words in done.stderr


def test_a_missing_disk_is_told_before_anything_is_touched(coldstart: Coldstart) -> None:
    """With file and line."""
    playbook = coldstart.playbook("t: {runtime: qemu, image: {drive: ./gone.img}}")
    done = coldstart.sweep("--playbook", playbook)
    assert done.returncode == 2
    assert f"{playbook}:4: target t: " in done.stderr
    assert "gone.img: no such file" in done.stderr
    assert not coldstart.runs()


def test_a_taken_port_is_a_recorded_outcome(node: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has come to listen where QEMU was to forward, and even answers: QEMU's words are the reason."""
    image = images.resolve("hello-unikernel", packaging="machine", arch="x86_64", base=Path())
    options = Options(**{**image.options, "net": "user", "accel": "tcg"})
    runtime = qemu.Runtime(options, Context("test-taken", str(tmp_path)))
    ready = Ready(port=8080, nonce=True, timeout_ns=5_000_000_000)
    prepared = runtime.prepare(image.image, ready, {part: str(path) for part, path in image.paths.items()})
    read, write = os.pipe()
    loop = BootLoop(read)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        monkeypatch.setattr(ports, "free", lambda address: other.getsockname()[1])
        boot = loop.boot(loop.stage(Order(0, 0, "t"), Prey(runtime, ready, prepared)))
    loop.close()
    os.close(read)
    os.close(write)
    assert (boot.outcome, "ready" in boot.marks_ns) == ("error:exited", False)
    assert "Could not set up host forwarding" in boot.detail


# --- permissions ---


def without_the_right(coldstart: Coldstart, playbook: str) -> subprocess.CompletedProcess[str]:
    """A sweep by somebody who may not administer the network."""
    setpriv = shutil.which("setpriv")
    assert setpriv
    argv = [setpriv, "--bounding-set=-net_admin", COMMAND, "sweep", str(coldstart.folder / "inventory.yaml")]
    return subprocess.run(
        [*argv, "--playbook", playbook], env=coldstart.environ, capture_output=True, text=True, timeout=60
    )


def test_without_tap_devices_user_networking_must_do(coldstart: Coldstart) -> None:
    """Labelled, with a warning; who insists on tap is refused with the reason."""
    lines = f"{target()}\ntap: {{{UNIKERNEL}, net: tap}}\ntcp: {{{UNIKERNEL}, ready: {{tcp: {{port: 8080}}}}}}"
    done = without_the_right(coldstart, coldstart.playbook(lines, "boots: 1, gap: 0s"))
    assert done.returncode == 0, done.stderr
    (boot,) = coldstart.records()
    assert (boot["target"], boot["outcome"], boot["labels"]["net"]) == ("unikernel", "ok", "user")
    assert "user networking instead" in done.stderr
    for name in ("tap", "tcp"):
        assert f"{name} warm skipped: no tap device: Operation not permitted" in done.stderr


# --- nothing is left ---


def qemus(run: str) -> list[int]:
    return [pid for pid in spawn.marked(spawn.MARK, run, but="") if "qemu" in Path(f"/proc/{pid}/comm").read_text()]


def test_killed_agents_take_their_machine_with_them(coldstart: Coldstart) -> None:
    """Both at once, without a word: QEMU dies with them, the bridge goes with whoever cleans up next."""
    playbook = coldstart.playbook(target("env: {COLDSTART_FAULT: deaf}"), "boots: 9, gap: 0s", timeout="60s")
    sweep = coldstart.start("--playbook", playbook, "--reconnect", "0")
    (pid,) = poll(lambda: qemus(sweep.run))
    agents = sweep.agents()
    for agent in agents.values():
        os.kill(agent, signal.SIGSTOP)
    for agent in agents.values():
        os.kill(agent, signal.SIGKILL)
    poll(lambda: not Path(f"/proc/{pid}").exists() or "(Z)" in Path(f"/proc/{pid}/status").read_text())
    sweep.wait()
    bridges = [name for name, alias in netlink.aliases().items() if alias == tap.ALIAS + sweep.run]
    assert len(bridges) == 1
    assert coldstart("clean", str(coldstart.folder / "inventory.yaml"), "--run", sweep.run).returncode == 0
    assert not leftovers(sweep.run)


def test_an_interrupted_sweep_leaves_nothing(coldstart: Coldstart) -> None:
    """No QEMU, no tap, no bridge, no file."""
    before = set(os.listdir("/var/tmp"))
    sweep = coldstart.start("--playbook", coldstart.playbook(target("memory: 64MiB"), "boots: 500, gap: 0s"))
    sweep.stored(2)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    assert not leftovers(sweep.run)
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("cs-")]
    assert set(os.listdir("/var/tmp")) <= before


# --- the parts, for themselves ---


@pytest.fixture
def bridge(node: Machine) -> Iterator[tap.Bridge]:
    made = tap.create("test-bridge")
    yield made
    assert tap.remove_marked("test-bridge", but="") == [f"bridge {made.name}"]


def test_a_bridge_without_anybody(bridge: tap.Bridge) -> None:
    """Its addresses are routed here while nobody is there; a tap goes with its descriptor, neighbours stay known."""
    address = bridge.next_address()
    fd = bridge.plug("cs-00000001", address)
    assert Path("/sys/class/net/cs-00000001/tx_queue_len").read_text().strip() == str(tap.QUEUE_FRAMES)
    os.close(fd)
    assert not Path("/sys/class/net/cs-00000001").exists()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.connect((address, 9))
        assert sock.getsockname()[0] == bridge.addresses.gateway
    neighbours = Path("/proc/net/arp").read_text()
    assert [line for line in neighbours.splitlines() if line.startswith(f"{address} ")]


def test_frames_reach_the_tap(bridge: tap.Bridge) -> None:
    """To the hardware address that was fixed before, without ARP."""
    address = bridge.next_address()
    fd = bridge.plug("cs-00000001", address)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.sendto(b"payload", (address, 9))
        frames = iter(lambda: os.read(fd, 2048), b"")
        frame = next(frame for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] == 17)
    assert frame[:6] == b"\x02\xc5" + socket.inet_aton(address)
    assert frame.endswith(b"payload")
    os.close(fd)


def test_frames_reach_nobody_else(bridge: tap.Bridge) -> None:
    """A probe for a machine that has not said a word yet does not wake the others."""
    others, address = bridge.next_address(), bridge.next_address()
    other, fd = bridge.plug("cs-00000001", others), bridge.plug("cs-00000002", address)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.sendto(b"payload", (address, 9))
        sock.sendto(b"payload", (others, 9))
        for number, expected in ((fd, address), (other, others)):
            frames = iter(lambda: os.read(number, 2048), b"")  # noqa: B023 - it is used up in this turn
            first = next(frame for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] == 17)
            assert first[30:34] == socket.inet_aton(expected)
    os.close(fd)
    os.close(other)


def test_somebody_elses_bridge_stays(node: Machine) -> None:
    """Only what bears the mark of a run is removed, and of this run only when it is asked for."""
    tap.create("test-mine")
    tap.create("test-other")
    try:
        assert len(tap.remove_marked("", but="test-mine")) == 1
        assert set(netlink.aliases().values()) >= {f"{tap.ALIAS}test-mine"}
    finally:
        assert len(tap.remove_marked("test-mine", but="")) == 1


def test_the_launcher_of_the_other_architecture(tmp_path: Path) -> None:
    """Run by QEMU's user emulation, which shows the system calls."""
    path = tmp_path / "launcher"
    path.write_bytes(launcher.program("aarch64"))
    path.chmod(0o755)
    emulator = shutil.which("qemu-aarch64")
    assert emulator
    done = subprocess.run([emulator, "-strace", path, "/nowhere", "-x"], env={"A": "B"}, capture_output=True, text=True)
    assert done.returncode == launcher.EXIT_NOT_STARTED
    assert "prctl(1,9," in done.stderr
    assert 'execve("/nowhere",{"/nowhere","-x",NULL})' in done.stderr
