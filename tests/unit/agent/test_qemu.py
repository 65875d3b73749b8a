"""Machines: what QEMU is told, when KVM is believed, and what is heard of a guest. QEMU itself: tests/live."""

from __future__ import annotations

import os
import platform
import re
import select
import shutil
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent import launcher, spawn
from coldstart.agent.checks import ExitCheck
from coldstart.agent.leader import Leader
from coldstart.agent.qemu import accel, command
from coldstart.agent.qemu.command import TAP_FD, Attachment, Start
from coldstart.agent.qemu.instance import Console, Qemu
from coldstart.agent.qemu.options import Options, complete
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, Unavailable, qemu
from coldstart.agent.subnets import Addresses
from coldstart.agent.tap import Bridge

TAP = Attachment("198.18.4.2", "198.18.4.1", 22, 8080)
USER = Attachment("10.0.2.15", "10.0.2.2", 24, 8080, 40000)


def start(files: dict[str, str] | None = None, to: Attachment = TAP, **options: object) -> list[str]:
    """QEMU's arguments for these options."""
    machine = complete(Options(**options), "x86_64")
    env = {"COLDSTART_NONCE": "{nonce}"}
    given_files = {"kernel": "/k"} if files is None else files
    return command.argv(machine, Start("/qemu", "name", "tcg", given_files, env, "n0nce", to))


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


# --- what QEMU is told ---


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("x86_64", {}, ("q35", "virtio-net-pci", "virtio-blk-pci")),
        ("aarch64", {}, ("virt", "virtio-net-pci", "virtio-blk-pci")),
        ("x86_64", {"arch": "aarch64"}, ("virt", "virtio-net-pci", "virtio-blk-pci")),
        ("x86_64", {"machine": "microvm,acpi=off"}, ("microvm,acpi=off", "virtio-net-device", "virtio-blk-device")),
        ("x86_64", {"nic": "e1000", "disk": "ide-hd"}, ("q35", "e1000", "ide-hd")),
        ("x86_64", {"machine": "microvm,isa-serial={console}", "console": "on"},
         ("microvm,isa-serial=on", "virtio-net-device", "virtio-blk-device")),
    ],
)  # fmt: skip
def test_defaults_go_with_each_other(arch: str, options: dict[str, str], expected: tuple[str, str, str]) -> None:
    machine = complete(Options(**options), arch)
    assert (machine.machine, machine.nic, machine.disk) == expected


def test_a_kernel_on_a_tap_device() -> None:
    """Nothing by default: no display, no configuration files, no second start after a reset."""
    argv = start(
        cmdline="quiet ip={ip}/{prefix} mask={netmask} gw={gateway} {mac} {port} {other}", memory_bytes=8 << 20
    )
    assert argv[0] == "/qemu"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} < set(argv)
    assert (value(argv, "-accel"), value(argv, "-cpu"), value(argv, "-m")) == ("tcg", "max", "size=8192k")
    assert (value(argv, "-kernel"), value(argv, "-serial")) == ("/k", "none")
    filled = "quiet ip=198.18.4.2/22 mask=255.255.252.0 gw=198.18.4.1 02:c5:c6:12:04:02 8080 {other}"
    assert value(argv, "-append") == f"{filled} COLDSTART_NONCE=n0nce"
    assert value(argv, "-netdev") == f"tap,id=net,fd={TAP_FD}"
    assert "virtio-net-pci,netdev=net,mac=02:c5:c6:12:04:02" in argv


def test_user_networking_forwards_one_port_and_nothing_else() -> None:
    """The guest has no way out."""
    assert value(start(to=USER), "-netdev") == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:40000-10.0.2.15:8080"


def test_no_port_is_forwarded_to_a_guest_that_is_not_asked() -> None:
    """QEMU refuses to forward to port 0, which is what `ready: output` and `ready: exit` have."""
    assert value(start(to=Attachment("10.0.2.15", "10.0.2.2", 24, 0, 40000)), "-netdev") == "user,id=net,restrict=on"


def test_a_disk_is_never_written() -> None:
    """Each boot finds it as it came; a comma in its path is no option."""
    argv = start({"drive": "/a,b"})
    assert value(argv, "-drive") == "file=/a,,b,format=raw,if=none,id=disk,snapshot=on"
    assert "virtio-blk-pci,drive=disk" in argv
    assert not {"-kernel", "-append", "-initrd"} & set(argv)


def test_what_is_asked_for_is_passed_on() -> None:
    argv = start(firmware="b.rom", console="on", cpu="max,+x", cpus=2, globals=("a.b=c", "d.e=f"), qemu_args=("-S",))
    assert (value(argv, "-bios"), value(argv, "-serial"), value(argv, "-cpu")) == ("b.rom", "stdio", "max,+x")
    assert (value(argv, "-smp"), argv[-1]) == ("2", "-S")
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-global"] == ["a.b=c", "d.e=f"]


@given(st.integers(0, 32))
def test_netmask(prefix: int) -> None:
    mask = int.from_bytes(bytes(map(int, Attachment("1.2.3.4", "", prefix, 1).netmask.split("."))), "big")
    assert mask == (1 << 32) - (1 << (32 - prefix))


def test_what_cannot_be_told_is_refused_in_the_playbook() -> None:
    objection = qemu.Runtime.objection
    assert "console: on" in objection(Options(), Ready("output", pattern="x"))
    assert "net: tap" in objection(Options(net="user"), Ready("tcp", port=1))
    assert not objection(Options(console="on"), Ready("output", pattern="x"))
    assert not objection(Options(), Ready("tcp", port=1))
    assert not objection(Options(net="user"), Ready("http", port=1))


def prepared(part: str, folder: Path, ready: Ready, **options: object) -> dict[str, str]:
    """The labels of a target whose image is this part alone, where there can be tap devices."""
    (folder / part).write_bytes(bytes(512))
    bridge = Bridge("none", Addresses(IPv4Network("198.18.4.0/22")))
    context = Context("run", "", shared={"tap bridge": bridge})
    runtime = qemu.Runtime(Options(accel="tcg", **options), context)
    return dict(runtime.prepare(Image("mine"), ready, {part: str(folder / part)}).labels)


def test_who_is_told_no_address_must_be_able_to_ask(tmp_path: Path) -> None:
    """A disk has no command line, and only QEMU's own stack answers DHCP; a tap device is for who insists."""
    http, output, tcp = Ready("http", port=80), Ready("output", pattern="x"), Ready("tcp", port=80)
    assert [prepared("kernel", tmp_path, ready)["net"] for ready in (http, output, tcp)] == ["tap", "tap", "tap"]
    assert [prepared("drive", tmp_path, ready)["net"] for ready in (http, output, tcp)] == ["user", "user", "tap"]
    assert prepared("drive", tmp_path, http, net="tap")["net"] == "tap"


def test_a_disk_is_told_nothing(tmp_path: Path) -> None:
    """Words that would go nowhere are refused."""
    for options in ({"cmdline": "quiet"}, {"env": {"A": "B"}}):
        with pytest.raises(Unavailable, match="this image has none"):
            prepared("drive", tmp_path, Ready("http", port=80), **options)


def test_no_qemu_is_said_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable) as error:
        qemu.Runtime(Options(arch="aarch64"), Context("run", "")).check()
    assert (error.value.reason, error.value.hint[-15:]) == ("no qemu-system-aarch64 here", "qemu-system-arm")


# --- KVM ---


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of /dev/kvm."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accel, "DEVICE", str(path))
    monkeypatch.setattr(accel, "LIMIT_S", 0.5)
    return path


def program(folder: Path, script: str) -> str:
    """In place of QEMU."""
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def chosen(script: str, folder: Path, **options: str) -> tuple[str, str]:
    trial = accel.Trial(program(folder, script), {"PATH": os.environ["PATH"]}, {})
    return accel.choose(complete(Options(**options), "x86_64"), trial, "x86_64")


def test_kvm_is_used_when_a_guest_has_run(device: Path, tmp_path: Path) -> None:
    """It ends with a code that QEMU alone never gives; it is given the processor that the target will have."""
    asked = tmp_path / "asked"
    assert chosen(f'echo "$@" > {asked}; exit 3', tmp_path, cpu="qemu64") == ("kvm", "")
    assert "-accel kvm -cpu qemu64" in asked.read_text()
    assert chosen("exit 3", tmp_path, accel="kvm") == ("kvm", "")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'failed to set MSR 0x10a' >&2; exit 1", "failed to set MSR 0x10a"),
        ("exit 0", "it ended with 0"),
        ("exec sleep 60", "nothing happened within 0.5 s"),
    ],
)
def test_a_device_that_runs_no_guest_is_not_believed(device: Path, tmp_path: Path, script: str, why: str) -> None:
    """`auto` falls back, and says so; `kvm` is refused with the reason."""
    used, warning = chosen(script, tmp_path)
    assert used == "tcg"
    assert f"no guest runs: {why}" in warning
    with pytest.raises(Unavailable, match="no guest runs"):
        chosen(script, tmp_path, accel="kvm")


def test_each_processor_is_tried_once(device: Path, tmp_path: Path) -> None:
    """For all targets of a run, and never where no trial is written."""
    count = tmp_path / "count"
    trial = accel.Trial(program(tmp_path, f"echo >> {count}; exit 3"), {"PATH": os.environ["PATH"]}, {})
    for options in ({}, {}, {"cpu": "qemu64"}, {"cpu": "host"}):
        assert accel.choose(complete(Options(**options), "x86_64"), trial, "x86_64") == ("kvm", "")
    assert len(count.read_text().splitlines()) == 2
    assert "no trial is written for riscv64" in accel.choose(complete(Options(), "riscv64"), trial, "riscv64")[1]


def test_the_trial_bears_our_mark(device: Path, tmp_path: Path) -> None:
    """Whoever cleans up finds it, should we be killed meanwhile."""
    seen = tmp_path / "seen"
    environ = {"PATH": os.environ["PATH"], spawn.MARK: "trial-run"}
    trial = accel.Trial(program(tmp_path, f"echo ${spawn.MARK} > {seen}; exit 3"), environ, {})
    assert trial.failure("x86_64", "host") == ""
    assert seen.read_text() == "trial-run\n"


def test_without_the_device_nothing_is_tried(device: Path, tmp_path: Path) -> None:
    """That is no surprise: the label says it."""
    device.unlink()
    assert chosen("exit 3", tmp_path) == ("tcg", "")
    with pytest.raises(Unavailable, match="there is no"):
        chosen("exit 3", tmp_path, accel="kvm")


def test_another_architecture_is_emulated(device: Path, tmp_path: Path) -> None:
    assert chosen("exit 3", tmp_path, arch="aarch64") == ("tcg", "")
    with pytest.raises(Unavailable, match="can only be emulated"):
        chosen("exit 3", tmp_path, arch="aarch64", accel="kvm")


def test_tcg_is_never_second_guessed(device: Path, tmp_path: Path) -> None:
    assert chosen("exit 3", tmp_path, accel="tcg") == ("tcg", "")


def test_the_firmware_of_the_trial() -> None:
    """Whole blocks, its instructions where the processor begins."""
    assert accel.firmware("x86_64")[-16:].startswith(bytes.fromhex("b001e6f4"))
    assert accel.firmware("aarch64")[8:12] == bytes.fromhex("020000d4")
    assert {len(accel.firmware(arch)) for arch in ("x86_64", "aarch64")} == {65536}


# --- how it ended ---


def ended(script: str, said: bytes, in_order: tuple[int, ...] = ()) -> Qemu:
    """A QEMU that has ended, with its words."""
    words, console = os.memfd_create("said"), Console("")
    os.write(words, said)
    leader = Leader(spawn.spawn_with(["/bin/sh", "-c", script], {}, {1: console.write_end, 2: console.write_end}))
    os.close(console.write_end)
    select.select([leader.exited], [], [], 10)
    return Qemu(leader, words, console, tap="", port=0, in_order=in_order)


@pytest.mark.parametrize(
    ("script", "said", "in_order", "refused", "epitaph"),
    [
        ("exit 1", b"qemu-system-x86_64: no such machine\nmore\n", (1,), True, "qemu-system-x86_64: no such machine"),
        ("exit 1", b"", (1,), False, "as this image does when it ends in order"),
        ("exit 1", b"qemu-system-x86_64: warning: old\n", (1,), False, "as this image does when it ends in order"),
        ("exit 83", b"", (83,), False, "as this image does when it ends in order"),
        ("exit 0", b"", (), False, "the guest switched off or was reset"),
        ("exit 7", b"", (), False, ""),
        ("kill -6 $$", b"qemu-system-x86_64: assertion\n", (), False, "qemu-system-x86_64: assertion"),
        ("exit 127", b"", (), False, "QEMU could not be executed"),
    ],
)
def test_what_an_exit_code_means(script, said, in_order, refused, epitaph) -> None:
    """1 is QEMU's own when it has complained, whatever the image calls its normal end; then it satisfies nobody."""
    one = ended(script, said, in_order)
    assert (one.refused(), one.epitaph()) == (refused, epitaph)
    code = one.exit_code()
    assert ExitCheck(code).verdict(one) is (None if refused else True)
    one.end()


# --- the console ---


@given(st.binary(max_size=200), st.integers(0, 200))
def test_the_marker_is_found_wherever_it_is_cut(noise: bytes, cut: int) -> None:
    console = Console("COLDSTART boot")
    data = noise + b"COLDSTART boot and more"
    try:
        os.write(console.write_end, data[:cut])
        console.read()
        assert console.heard == (b"COLDSTART boot" in data[:cut])
        os.write(console.write_end, data[cut:])
        os.close(console.write_end)
        console.read()
        assert console.heard
        assert console.text() == data.decode("utf-8", "replace").replace("\r\n", "\n")
        assert console.ended
    finally:
        console.close()


def test_a_line_ends_where_a_pattern_looks_for_its_end() -> None:
    """Linux ends the lines of its console in \\r\\n."""
    console = Console("")
    os.write(console.write_end, b"[ 1.0] up\r\nready\r\n")
    console.read()
    assert re.search("^ready$", console.text(), re.MULTILINE)
    os.close(console.write_end)
    console.close()


def test_without_a_marker_nobody_is_heard() -> None:
    console = Console("")
    os.write(console.write_end, b"text")
    console.read()
    assert not console.heard
    assert console.text() == "text"
    os.close(console.write_end)
    console.close()


# --- the launcher ---


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other one's turn: tests/live/test_machines.py")
def test_the_launcher_becomes_its_program(tmp_path: Path) -> None:
    """With its arguments and environment; it says with a code of its own that it could not."""
    path = tmp_path / "launcher"
    path.write_bytes(launcher.program("x86_64"))
    path.chmod(0o755)
    script = 'echo "$0 $1 $A"; exit 7'
    done = subprocess.run(
        [path, "/bin/sh", "-c", script, "zero", "one"], env={"A": "B"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (7, "zero one B\n")
    assert subprocess.run([path, "/nowhere"]).returncode == launcher.EXIT_NOT_STARTED
    assert subprocess.run([path]).returncode == launcher.EXIT_NOT_STARTED


def test_where_it_may_not_run_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only a second net: a policy that forbids it must not cost a boot."""
    launcher.path.cache_clear()
    monkeypatch.setattr(launcher, "program", lambda arch: b"no program")
    assert launcher.path() == ""
    launcher.path.cache_clear()


def test_what_is_launched_dies_with_its_parent() -> None:
    """Killed, without a chance to clean up."""
    assert launcher.path()
    code = (
        "import os, sys; from coldstart.agent import launcher, spawn\n"
        f"pid = spawn.spawn([launcher.path(), {shutil.which('sleep')!r}, '60'], {{}}, 1)\n"
        "print(pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":  # before it is, it has not asked for the signal
            assert not select.select([child], [], [], 0.001)[0]
        parent.kill()
    with os.fdopen(child):
        assert select.select([child], [], [], 10)[0]


def test_streams_of_a_child() -> None:
    """Each descriptor where it is wanted, whatever ours are called."""
    said, other = os.memfd_create("said"), os.memfd_create("other")
    pid = spawn.spawn_with(["/bin/sh", "-c", "echo a; echo b >&2; echo c >&3"], {}, {1: said, 2: said, 3: other})
    os.waitpid(pid, 0)
    assert (os.pread(said, 9, 0), os.pread(other, 9, 0)) == (b"a\nb\n", b"c\n")
    os.close(said)
    os.close(other)
