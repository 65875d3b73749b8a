"""The lab keeps what its shapes promise, what can be done to a node happens, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import poll
from lab import names, network, removal, shapes
from lab.fixture import MakeLab
from lab.fleet import Lab, LabError
from lab.node import Node
from lab.shapes import Shape

from coldstart import inventory

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
EDGE = "edge-1"


def seconds_of(lab: Lab, name: str, count: int = 9) -> list[float]:
    """Round trips of one byte over an SSH connection that is there already."""
    argv = lab.ssh(name, "exec cat")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin
        assert cat.stdout
        times = []
        for _ in range(count + 1):
            begin = time.monotonic()
            cat.stdin.write(b".")
            assert cat.stdout.read(1) == b"."
            times.append(time.monotonic() - begin)
        cat.stdin.close()
    return times[1:]  # without the connection itself


def uptime_s(node: Node) -> float:
    return float(node.run(["cat", "/proc/uptime"]).stdout.split()[0])


@pytest.mark.parametrize("name", [shape.name for shape in shapes.DEFAULT])
def test_nodes_are_reached_with_verified_host_keys(fleet: Lab, name: str) -> None:
    done = fleet.run_ssh(name, "hostname; id -un")
    assert done.stdout.split() == [name, "root"], done.stderr


def test_a_host_key_that_is_not_listed_is_refused(fleet: Lab) -> None:
    cloud, laptop = fleet.nodes["cloud-1"], fleet.nodes["laptop-1"]
    done = fleet.run_ssh("cloud-1", "-o", f"HostName={laptop.address}", "-o", "HostKeyAlias=" + cloud.address, "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_the_inventory_is_one_for_coldstart(fleet: Lab) -> None:
    """Its loader reads it, strictly: sites, addresses, the key."""
    nodes = {node.name: node for node in inventory.load(fleet.inventory).nodes}
    assert {name: node.site for name, node in nodes.items()} == {s.name: s.site for s in shapes.DEFAULT}
    for name, node in nodes.items():
        assert node.vars["ansible_host"] == fleet.nodes[name].address
        assert node.vars["ansible_ssh_private_key_file"] == str(fleet.key)
        assert str(fleet.known_hosts) in node.vars["ansible_ssh_common_args"]


def test_this_machine_is_not_seen_from_a_node(fleet: Lab) -> None:
    """Neither its processes, nor its keys, nor its engine."""
    node = fleet.nodes[EDGE]
    seen = node.run(["sh", "-c", "ls /proc"]).stdout.split()
    assert len([word for word in seen if word.isdigit()]) < 20
    assert node.run(["cat", "/proc/1/comm"]).stdout == "sleep\n"
    assert node.run(["sh", "-c", "cat /root/.ssh/*"]).stdout == fleet.key.with_suffix(".pub").read_text()
    assert node.run(["sh", "-c", "ls -A /home /tmp /var/tmp"]).stdout.split() == ["/home:", "/tmp:", "/var/tmp:"]
    name = {info["Name"] for info in [node.engine.info()]}
    assert name == {EDGE}


def test_delays_are_those_of_the_shape(fleet: Lab) -> None:
    """A round trip takes both directions' sum at least, jitter aside; next door it is far less. The quickest of
    several: a busy machine makes only the others late."""
    near, far = (min(seconds_of(fleet, name)) for name in ("cloud-1", EDGE))
    assert near < 0.006
    assert 0.009 < far < 0.030


def test_a_delay_changes_at_run_time(fleet: Lab) -> None:
    node = fleet.nodes["laptop-1"]
    node.set_line(up_ms=60, down_ms=0, jitter_ms=0)
    slow = min(seconds_of(fleet, "laptop-1"))
    node.set_line(up_ms=node.shape.up_ms, down_ms=node.shape.down_ms, jitter_ms=node.shape.jitter_ms)
    assert 0.060 <= slow < 0.120


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bandwidth_is_that_of_the_shape(fleet: Lab, direction: str) -> None:
    """2 MB at 20 Mbit/s are 0.8 s."""
    begin = time.monotonic()
    if direction == "up":
        moved = len(
            subprocess.run(fleet.ssh(EDGE, "head -c 2000000 /dev/zero"), capture_output=True, check=True).stdout
        )
    else:
        argv = fleet.ssh(EDGE, "wc -c")
        moved = int(subprocess.run(argv, input=bytes(2_000_000), capture_output=True, check=True).stdout)
    assert moved == 2_000_000
    assert 0.6 < time.monotonic() - begin < 3.2


def test_limits_are_those_of_the_shape(fleet: Lab) -> None:
    """A CPU quota of half a core: a second of work takes two."""
    node = fleet.nodes[EDGE]
    code = "import time\nb = time.monotonic()\nwhile time.process_time() < 0.5: pass\nprint(time.monotonic() - b)"
    assert float(node.run(["/usr/bin/python3", "-S", "-c", code]).stdout) > 0.75
    limit = node.run(["cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).stdout
    assert int(limit) == node.shape.memory_bytes


def test_the_clock_is_that_of_the_shape(fleet: Lab) -> None:
    """Monotonic and boot time differ from this machine's, in every way into the node; the wall clock does not."""
    node = fleet.nodes[EDGE]
    assert node.shape.uptime_s
    code = "import time; print(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())"
    for text in (fleet.run_ssh(EDGE, f"python3 -c '{code}'").stdout, node.run(["python3", "-c", code]).stdout):
        monotonic, boot, wall = map(float, text.split())
        assert 0 < monotonic - node.shape.uptime_s < 3600
        assert 0 < boot - node.shape.uptime_s < 3600
        assert abs(wall - time.time()) < 5


@pytest.mark.parametrize("name", ["cloud-1", EDGE])
def test_a_session_outlives_a_cut_of_two_seconds(fleet: Lab, name: str) -> None:
    """With and without a delay line: nothing comes through, and afterwards all of it."""
    node = fleet.nodes[name]
    with subprocess.Popen(fleet.ssh(name, "exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin
        assert cat.stdout
        cat.stdin.write(b"a")
        assert cat.stdout.read(1) == b"a"
        node.cut()
        cat.stdin.write(b"b")
        os.set_blocking(cat.stdout.fileno(), False)
        time.sleep(2)
        assert cat.stdout.read(1) is None
        node.mend()
        assert poll(lambda: cat.stdout.read(1)) == b"b"
        cat.stdin.close()


def test_killed_sessions_end_and_new_ones_begin(fleet: Lab) -> None:
    node = fleet.nodes["cloud-1"]
    with subprocess.Popen(fleet.ssh("cloud-1", "sleep 100"), stderr=subprocess.PIPE) as session:
        poll(lambda: node.named("sleep")[1:])
        assert node.kill_sshd_sessions() > 0
        assert session.wait(10) == 255
    assert fleet.run_ssh("cloud-1", "true").returncode == 0


def test_a_stopped_sshd_refuses(fleet: Lab) -> None:
    node = fleet.nodes["cloud-1"]
    node.stop_sshd()
    refused = fleet.run_ssh("cloud-1", "true")
    node.start_sshd()
    assert "Connection refused" in refused.stderr
    assert fleet.run_ssh("cloud-1", "true").returncode == 0


def test_the_engine_starts_again(fleet: Lab) -> None:
    node = fleet.nodes["cloud-1"]
    before = node.named("dockerd")
    node.restart_engine()
    assert node.engine.answers()
    assert node.named("dockerd") != before


def test_a_reboot_ends_all_and_begins_time_anew(make_lab: MakeLab) -> None:
    """Processes, interfaces and memory are gone, the disk is not; the boot has an id of its own."""
    lab = make_lab(Shape("n1", uptime_s=1_000_000))
    node = lab.nodes["n1"]
    boot_id = node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    node.run(["sh", "-c", "ip link add cs-12345678 type bridge; touch /root/kept /tmp/lost"])
    node.spawn(["sleep", "1000"])
    assert node.leftovers() == ["interface cs-12345678"]
    node.reboot()
    assert uptime_s(node) < 100
    assert node.leftovers() == []
    assert node.run(["sh", "-c", "ls /root /tmp"]).stdout.split() == ["/root:", "kept", "/tmp:"]
    assert len(node.named("sleep")) == 1  # pid 1 itself
    assert node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot_id
    assert lab.run_ssh("n1", "true").returncode == 0


def test_a_changed_host_key_is_noticed(make_lab: MakeLab) -> None:
    lab = make_lab(Shape("n1"))
    lab.nodes["n1"].change_host_key()
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in lab.run_ssh("n1", "true").stderr
    lab.write_access()
    assert lab.run_ssh("n1", "true").returncode == 0


def test_a_capture_sees_when_each_node_sends(fleet: Lab) -> None:
    """At the nodes themselves: before the delay. In the switch: after it, with the jitter of the shape."""
    count, to = 20, (fleet.nodes["cloud-1"].address, 9999)
    code = f"""
import socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for index in range({count}):
    sock.sendto(b"%d" % index, {to})
    time.sleep(0.01)
"""
    with fleet.capture(EDGE) as there, fleet.capture() as between:
        before_ns = time.time_ns()
        fleet.nodes[EDGE].run(["/usr/bin/python3", "-S", "-c", code])
        sent, passed = (c.wait(lambda packet: packet.is_udp and packet.to == to, count) for c in (there, between))
    assert {packet.source[0] for packet in sent} == {fleet.nodes[EDGE].address}
    assert all(packet.sent for packet in sent)
    assert [packet.payload for packet in sent] == [packet.payload for packet in passed]
    assert before_ns < sent[0].time_ns < sent[-1].time_ns < time.time_ns()
    delays_ms = [(after.time_ns - before.time_ns) / 1e6 for before, after in zip(sent, passed, strict=True)]
    assert 6 <= min(delays_ms) < 12  # 8 ms +- 2 ms
    assert max(delays_ms) - min(delays_ms) > 1


def test_leftovers_are_found(fleet: Lab) -> None:
    """A marked process; what bears no mark is nobody's."""
    node = fleet.nodes["cloud-1"]
    node.spawn(["env", "COLDSTART_RUN=r1", "sleep", "1000"])
    node.spawn(["sleep", "1001"])
    (found,) = poll(node.leftovers)
    assert found.endswith("sleep 1000")
    for pid in node.named("sleep"):
        if pid != min(node.named("sleep")):
            os.kill(pid, signal.SIGKILL)
    poll(lambda: not node.leftovers())


def test_a_node_behind_another_is_reached_through_it_only(make_lab: MakeLab) -> None:
    lab = make_lab(Shape("jump"), Shape("inner", behind="jump", up_ms=5, down_ms=5))
    assert lab.run_ssh("inner", "hostname").stdout == "inner\n"
    with socket.socket() as sock:
        sock.settimeout(10)
        with pytest.raises(OSError, match="No route to host"):
            sock.connect((lab.nodes["inner"].address, 22))
    assert "-J root@" in lab.inventory.read_text()


def test_nodes_of_every_kind(make_lab: MakeLab) -> None:
    """Users, shells, start-up files, servers' settings, and what is not there."""
    lab = make_lab(
        Shape("free", user="pi", sudo="free", groups=("docker",)),
        Shape("asks", user="pi", sudo="password"),
        Shape("fish", login_shell="/usr/bin/fish", rc="echo welcome"),
        Shape("csh", login_shell="/bin/csh", rc="echo welcome"),
        Shape("bare", without=(*shapes.NO_PYTHON, *shapes.NO_DOCKER)),
        Shape("strict", sshd=("MaxSessions 1", "AllowTcpForwarding no")),
    )
    assert lab.run_ssh("free", "id -un; sudo -n id -un; id -Gn").stdout.split() == ["pi", "root", "pi", "docker"]
    assert lab.run_ssh("asks", "sudo -n true").returncode != 0
    asked = subprocess.run(
        lab.ssh("asks", "sudo -S id -un"), input=f"{shapes.PASSWORD}\n", capture_output=True, text=True, check=False
    )
    assert asked.stdout == "root\n"
    assert lab.run_ssh("fish", "echo $FISH_VERSION").stdout.startswith("welcome\n3")
    assert lab.run_ssh("csh", "echo $version").stdout.startswith("welcome\ntcsh")
    assert lab.run_ssh("bare", "command -v python3 docker dockerd; echo none").stdout == "none\n"
    assert "maxsessions 1\n" in lab.nodes["strict"].run(["/usr/sbin/sshd", "-T"]).stdout


def test_fifty_nodes(make_lab: MakeLab) -> None:
    begin = time.monotonic()
    lab = make_lab(*shapes.plain(50))
    assert time.monotonic() - begin < 30
    assert lab.run_ssh("n50", "hostname").stdout == "n50\n"


def test_a_sweep_succeeds_within_every_shape(tmp_path: Path) -> None:
    """Process, container and unikernel, also with half a core and 1 GiB; nothing stays in the node."""
    shown = (str(ROOT), sys.base_prefix)
    command = f"cd {ROOT} && exec .venv/bin/coldstart sweep local --boots 1 --store /tmp/store.db"
    targets = "--target process --target container --target unikernel --format json"
    fleet = [Shape(**{**shape.as_data(), "shows": shown}) for shape in shapes.DEFAULT]
    with Lab(tmp_path / "lab", fleet) as lab:
        for node in lab.nodes.values():
            done = node.run(["sh", "-c", f"{command} {targets}"], check=False)
            assert done.returncode == 0, (node.name, done.stdout, done.stderr)
            assert '"failed": 0' in done.stdout
            assert poll(lambda node=node: not node.leftovers())


def test_one_lab_in_a_folder(make_lab: MakeLab, tmp_path: Path) -> None:
    """A second one is refused and harms nothing; so is a folder that is somebody else's."""
    lab = make_lab(Shape("n1"))
    with pytest.raises(LabError, match=r"there is a lab in .*; next: make lab-down"):
        Lab(lab.folder, [Shape("n2")]).up()
    with pytest.raises(LabError, match="not a lab's"):
        Lab(tmp_path, [Shape("n2")]).up()
    assert lab.run_ssh("n1", "true").returncode == 0


def test_labs_beside_each_other(fleet: Lab, make_lab: MakeLab) -> None:
    """None hears of the other."""
    lab = make_lab(Shape("cloud-1"))
    assert lab.nodes["cloud-1"].address != fleet.nodes["cloud-1"].address
    assert lab.run_ssh("cloud-1", "hostname").stdout == fleet.run_ssh("cloud-1", "hostname").stdout
    code = f"import socket; socket.create_connection(('{lab.nodes['cloud-1'].address}', 22), 2)"
    assert "Network is unreachable" in fleet.nodes["cloud-1"].run(["python3", "-c", code], check=False).stderr


def test_an_engine_that_crashed_starts_again(fleet: Lab) -> None:
    node = fleet.nodes["laptop-1"]
    node.kill_engine()
    assert not node.engine.answers()
    node.start_engine()
    assert node.engine.info()["Name"] == "laptop-1"


def test_the_folder_of_a_lab_from_before_the_last_shutdown_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / removal.MARK).touch()
    with Lab(folder, [Shape("n1")]) as lab:
        assert lab.run_ssh("n1", "true").returncode == 0
    assert not folder.exists()


def test_nothing_is_left(tmp_path: Path) -> None:
    """Processes, namespaces, interfaces, groups, mounts, files: of a lab with all that a lab can have."""
    links, mounts = network.links(), Path("/proc/mounts").read_text()
    lab = Lab(tmp_path / "lab", (*shapes.DEFAULT, Shape("inner", behind="cloud-1", line=True)))
    with lab:
        assert len(lab.remains()) > 10
        lab.nodes["cloud-1"].spawn(["sleep", "1000"])
    assert lab.remains() == []
    assert (network.links(), Path("/proc/mounts").read_text()) == (links, mounts)
    lab.down()


def test_a_lab_that_died_half_made_is_removed(tmp_path: Path) -> None:
    """By whoever makes the next one."""
    code = "import sys; from pathlib import Path; from lab.fleet import *; Lab(Path(sys.argv[1])).__enter__()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    folder = tmp_path / "lab"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environ) as dying:
        poll(lambda: (folder / "laptop-1" / "line.json").exists())
        dying.kill()
    state = names.find(folder)
    assert state
    assert removal.remains(state.names, folder)
    removal.remove_orphans()
    assert removal.remains(state.names, folder) == []
