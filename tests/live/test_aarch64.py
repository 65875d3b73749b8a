"""An aarch64 machine on the network: prepared and swept over SSH, with a kernel, an engine and clocks not this
machine's."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from conftest import Coldstart, poll
from lab import aptsource, image
from lab.fleet import Lab, LabError
from lab.guest import NotPossible
from lab.node import Node
from lab.shapes import PI, Shape

pytestmark = pytest.mark.live

NAME = PI.name
SWEEP_LIMIT_S = 240.0
PREPARE_LIMIT_S = 180.0
TARGETS = """
process: {runtime: process, image: hello}
container: {runtime: docker, image: hello}
unikernel: {runtime: qemu, image: hello-unikernel}
emulated: {runtime: qemu, image: hello-unikernel, accel: tcg}
vm: {runtime: qemu, image: hello-vm}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One machine for all tests here, beside a node as others are; in the end, nothing is left of either."""
    made = Lab(tmp_path_factory.mktemp("aarch64") / "lab", (Shape("n1"), PI))
    try:
        made.up(owner=os.getpid())
    except LabError as error:
        pytest.skip(str(error))
    yield made
    made.down()
    assert made.remains() == []


@pytest.fixture
def pi(lab: Lab) -> Node:
    return lab.nodes[NAME]


def boot_id(node: Node) -> str:
    return node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout


def test_it_is_a_machine_of_its_own(lab: Lab, pi: Node) -> None:
    """Reached with a verified host key; another architecture, kernel and boot, the size that was asked for."""
    seen = lab.run_ssh(NAME, "hostname; id -un; uname -m; nproc; head -n 1 /proc/meminfo; findmnt -no FSTYPE /")
    name, user, arch, processors, _, memory, _, disk = seen.stdout.split()
    assert (name, user, arch, processors, disk) == (NAME, "root", "aarch64", "2", "ext4"), seen.stderr
    assert 0.9 * PI.ram_bytes < int(memory) * 1024 < PI.ram_bytes
    assert boot_id(pi) != boot_id(lab.nodes["n1"])
    assert abs(float(pi.run(["date", "+%s"]).stdout) - time.time()) < 10


def test_it_is_on_the_network_of_the_others(lab: Lab, pi: Node) -> None:
    """They reach each other, and its link is as its shape says: a round trip takes both directions' delay."""
    other = lab.nodes["n1"]
    for one, to in ((other, pi), (pi, other)):
        code = (
            "import socket, time; b = time.monotonic();"
            f"socket.create_connection(('{to.address}', 22), 10); print(time.monotonic() - b)"
        )
        took_s = min(float(one.run(["python3", "-c", code]).stdout) for _ in range(3))
        assert 0.009 < took_s < 0.2, one.name


def test_check(coldstart: Coldstart, lab: Lab) -> None:
    """Everything that can be measured there can be, and check knows what it is."""
    done = coldstart("check", str(lab.inventory), "--limit", NAME, "--format", "json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    (found,) = json.loads(done.stdout)["nodes"]
    assert (found["reachable"], found["facts"]["arch"]) == (True, "aarch64")
    assert [finding for finding in found["findings"] if finding["severity"] == "problem"] == []


def test_its_packages_are_known(pi: Node) -> None:
    """To its own dpkg and apt, who miss nothing."""
    assert pi.run(["dpkg", "--audit"]).stdout == ""
    assert pi.run(["apt-get", "-qq", "check"]).stdout == ""
    assert pi.run(["dpkg", "--print-architecture"]).stdout == "arm64\n"
    owners = pi.run(["dpkg", "--search", "/bin/bash", "/usr/sbin/sshd", "/usr/sbin/dockerd"]).stdout
    assert owners.split()[::2] == ["bash:", "openssh-server:", "docker.io:"]


def test_prepare(coldstart: Coldstart, lab: Lab, pi: Node) -> None:
    """No Python and no QEMU: `check` says so; a plan changes nothing; then its own apt installs Debian's packages for
    its architecture, `check` is content, and there is nothing left to do. The sweeps below are made with these."""
    coldstart.limit_s = PREPARE_LIMIT_S
    missing = ("python3", "python3-minimal", "libpython3-stdlib", "qemu-system-arm")
    aptsource.offer(pi, image.archives(*missing))
    pi.run(["dpkg", "--remove", *missing])
    assert "no-python" in findings(coldstart, lab)

    before = remembered(pi)
    planned = coldstart("prepare", str(lab.inventory), "--limit", NAME)
    assert (planned.returncode, "--yes" in planned.stderr) == (0, True)
    assert planned.stdout.startswith(f"edge/{NAME}: Debian GNU/Linux ")
    assert "  python         would bring the package lists up to date (apt-get update" in planned.stdout
    assert "  qemu           would install qemu-system-arm (apt-get install" in planned.stdout
    assert remembered(pi) == before

    done = coldstart("prepare", str(lab.inventory), "--limit", NAME, "--yes", "--format", "json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["nodes"]
    assert {task["task"]: task["state"] for task in entry["tasks"]} == {
        "python": "changed",
        "docker": "ok",
        "qemu": "changed",
        "groups": "not-applicable",
        "memory-cgroup": "not-applicable",
    }
    installed = pi.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Architecture} ", *missing]).stdout
    assert installed == "ii arm64 " * len(missing)
    assert findings(coldstart, lab).isdisjoint({"no-python", "qemu"})

    before = remembered(pi)
    again = coldstart("prepare", str(lab.inventory), "--limit", NAME, "--yes")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "1 nodes: nothing to do"), again.stderr
    assert remembered(pi) == before


def findings(coldstart: Coldstart, lab: Lab) -> set[str]:
    """Of `check`, by kind."""
    done = coldstart("check", str(lab.inventory), "--limit", NAME, "--format", "json")
    (entry,) = json.loads(done.stdout)["nodes"]
    return {finding["kind"] for finding in entry["findings"]}


def remembered(pi: Node) -> str:
    """All that a task could change there."""
    places = ("/var/lib/dpkg/status", "/var/lib/apt/lists", "/etc/group", "/etc/passwd")
    return pi.run(["find", *places, "-type", "f", "-exec", "md5sum", "{}", "+"]).stdout


def test_sweep(coldstart: Coldstart, lab: Lab, pi: Node) -> None:
    """Process, container, Linux VM and unikernel, both kinds of start: every boot is good, and nothing of them is left.
    Machines run on the guest's own processor, by its own KVM."""
    playbook = coldstart.playbook(TARGETS, "boots: 1, gap: 0s", "start: [warm, page-cold]", timeout="60s")
    sweep = coldstart.start(str(lab.inventory), "--playbook", playbook, "--limit", NAME)
    assert sweep.wait(SWEEP_LIMIT_S) == 0, sweep.stderr
    outcomes = Counter((record["target"], record["start"], record["outcome"]) for record in coldstart.records())
    targets = ("process", "container", "unikernel", "emulated", "vm")
    assert outcomes == {(target, start, "ok"): 1 for target in targets for start in ("warm", "page-cold")}
    document = json.loads(coldstart("show", "--format", "json").stdout)
    cells = document["cells"]
    assert {(cell["node"], cell["arch"], cell["failed"]) for cell in cells} == {(NAME, "aarch64", 0)}
    accelerated = {cell["target"]: cell["labels"]["accel"] for cell in cells if "accel" in cell["labels"]}
    assert accelerated == {"unikernel": "kvm", "emulated": "tcg", "vm": "kvm"}
    assert document["missing"] == []
    assert poll(lambda: pi.leftovers() == [])


def test_images_travel(coldstart: Coldstart, lab: Lab, pi: Node) -> None:
    """Its engine pulls through the SSH connection, what its architecture needs; so do files."""
    targets = "\n".join(TARGETS.strip().splitlines()[:3])
    playbook = coldstart.playbook(targets, "boots: 1, gap: 0s", "start: [image-absent]", timeout="60s")
    sweep = coldstart.start(str(lab.inventory), "--playbook", playbook, "--limit", NAME)
    assert sweep.wait(SWEEP_LIMIT_S) == 0, sweep.stderr
    assert {(record["target"], record["outcome"]) for record in coldstart.records()} == {
        ("process", "ok"),
        ("container", "ok"),
        ("unikernel", "ok"),
    }
    assert poll(lambda: pi.leftovers() == [])


def test_clocks_that_disagree(coldstart: Coldstart, lab: Lab, pi: Node) -> None:
    """A wall clock that is wrong by an hour, and a monotonic one that is nobody else's: loops begin together all the
    same."""
    playbook = coldstart.playbook("process: {runtime: process, image: hello}", "boots: 3, gap: 5ms")
    pi.run(["date", "-s", "+1 hour"])
    try:
        sweep = coldstart.start(str(lab.inventory), "--playbook", playbook)
        assert sweep.wait(SWEEP_LIMIT_S) == 0, sweep.stderr
    finally:
        pi.run(["date", "-s", "-1 hour"])
    sync = json.loads(coldstart("show", "--format", "json").stdout)["sync"]
    assert (sync["waves"], sync["nodes"]) == (1, 2)
    assert sync["skew_seconds"]["max"] < 0.5
    assert Counter(record["node"] for record in coldstart.records()) == {"n1": 3, NAME: 3}


def test_clean_removes_images(coldstart: Coldstart, lab: Lab, pi: Node) -> None:
    """What the sweep above has pushed there, and no more than that."""
    pi.run(["sh", "-c", "tar -cf - -C / etc/hostname | docker import - somebody:else"])
    cleaned = coldstart("clean", str(lab.inventory), "--limit", NAME, "--images")
    assert cleaned.returncode == 0, cleaned.stderr
    tags = [tag for entry in pi.engine.get("/images/json") for tag in entry["RepoTags"]]
    assert tags == ["somebody:else"]


def test_a_session_outlives_a_cut(lab: Lab, pi: Node) -> None:
    with subprocess.Popen(lab.ssh(NAME, "exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin
        assert cat.stdout
        cat.stdin.write(b"a")
        assert cat.stdout.read(1) == b"a"
        pi.cut()
        cat.stdin.write(b"b")
        os.set_blocking(cat.stdout.fileno(), False)
        time.sleep(2)
        assert cat.stdout.read(1) is None
        pi.mend()
        assert poll(lambda: cat.stdout.read(1)) == b"b"
        cat.stdin.close()


def test_leftovers_are_found(pi: Node) -> None:
    """From within: processes, interfaces."""
    pi.spawn(["env", "COLDSTART_RUN=r1", "sleep", "1000"])
    pi.run(["ip", "link", "add", "cs-12345678", "type", "bridge"])
    assert poll(lambda: [words.split()[0] for words in pi.leftovers()]) == ["process", "interface"]
    pi.run(["sh", "-c", "pkill -f '^sleep 1000'; ip link del cs-12345678"])
    assert poll(lambda: pi.leftovers() == [])


def test_a_reboot_ends_all_and_begins_time_anew(lab: Lab, pi: Node) -> None:
    """As by the plug: the disk remains as far as it was written, the boot is another; its engine is there again."""
    before = boot_id(pi)
    pi.run(["sh", "-c", "touch /root/kept /tmp/lost; sync"])
    pi.reboot()
    assert boot_id(pi) != before
    assert float(pi.run(["cat", "/proc/uptime"]).stdout.split()[0]) < 120
    assert pi.run(["sh", "-c", "ls /root /tmp"]).stdout.split() == ["/root:", "kept", "/tmp:"]
    assert pi.engine.info()["Architecture"] == "aarch64"
    assert pi.leftovers() == []


def test_what_cannot_be_done_says_so(pi: Node) -> None:
    for do in (lambda: pi.path("/etc"), pi.kill_sshd_sessions, pi.stop_sshd, pi.restart_engine, pi.change_host_key):
        with pytest.raises(NotPossible, match=f"{NAME} is a machine of its own: "):
            do()


def test_its_image_is_made_once(lab: Lab) -> None:
    begin = time.monotonic()
    assert image.get().folder == (lab.folder / NAME / "image").resolve()
    assert time.monotonic() - begin < 10
