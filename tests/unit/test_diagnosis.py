"""Every finding: when it is raised, and that it says what to do."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from coldstart import diagnosis
from coldstart.agent import floors as agent_floors
from coldstart.agent import surveyparse
from coldstart.checking import judge
from coldstart.diagnosis import Known, findings
from coldstart.errors import NodeError
from coldstart.floors import DISK_BYTES, MEMORY_BYTES, Floors
from coldstart.model import Checked, Finding
from coldstart.report import checked

CASES_OF_FACTS = Path(__file__).parents[1] / "facts" / "cases"
DOCS = Path(__file__).parents[2] / "docs" / "check.md"
GOOD = {
    "arch": "x86_64", "os": "Debian GNU/Linux 12 (bookworm)", "os_id": "debian", "cpus": "4", "load": "0.05",
    "memory_bytes": str(8 << 30), "python": "3.11.2", "userland_bits": "64", "user": "root", "user_name": "root",
    "docker": "answers", "docker_version": "20.10.24", "docker_socket": "/var/run/docker.sock", "clock": "synchronised",
    "qemu-system-x86_64": "/usr/bin/qemu-system-x86_64", "kvm_device": "usable", "net_admin": "yes", "tun": "yes",
    "memory_cgroup": "on", "memory_available_bytes": str(4 << 30), "disk_free_bytes": str(9 << 30),
    "docker_group": "yes", "docker_root": "/var/lib/docker", "docker_root_free_bytes": str(9 << 30),
    "sudo": "/usr/bin/sudo",
}  # fmt: skip
NO_DOCKER = {"docker": "absent", "docker_version": ""}
STOPPED = {**NO_DOCKER, "dockerd": "/usr/sbin/dockerd"}
ARM = {"arch": "aarch64", "qemu__system__aarch64": "/usr/bin/qemu-system-aarch64"}
ALPINE_USER = {"os_id": "alpine", "user": "user", "user_name": "ann"}
NO_KVM = {"kvm_device": "absent"}
PI_USER = {"user": "user", "user_name": "pi"}
RUNTIMES = ("process", "docker", "qemu")


def known(wall_offset_ns: int = 0, swept: tuple[str, ...] = (), runtimes=RUNTIMES, **facts: str) -> Known:
    changed = {key.replace("__", "-"): value for key, value in facts.items()}
    return Known({**GOOD, **changed}, Floors(MEMORY_BYTES, DISK_BYTES, 1), runtimes, wall_offset_ns, 1000, swept)


def test_nothing_to_say():
    """A node that is as it should be."""
    assert findings(known()) == []


CASES = [
    (known(userland_bits="32", arch="aarch64", qemu_system="x"), "userland", "problem", "64-bit image"),
    (known(docker="denied"), "docker-permission", "problem", "usermod -aG docker"),
    (known(docker="denied", groups_at_next_login="docker"), "docker-permission", "problem", "log in again"),
    (known(docker="denied", **PI_USER), "docker-permission", "problem", "sudo usermod -aG docker pi, then log in"),
    (known(docker="denied", **ALPINE_USER), "docker-permission", "problem", "sudo addgroup ann docker"),
    (known(docker="denied", docker_group=""), "docker-permission", "problem", "sudo groupadd docker, sudo systemctl"),
    (known(docker="silent", docker_reason="timed out"), "docker-engine", "problem", "restart dockerd"),
    (known(docker="silent", service_manager="yes"), "docker-engine", "problem", "sudo systemctl restart docker"),
    (known(docker="refused", docker_reason="tcp"), "docker-engine", "problem", "coldstart_docker_host"),
    (known(**NO_DOCKER), "docker-engine", "note", "apt-get install docker.io"),
    (known(**NO_DOCKER, os_id="fedora"), "docker-engine", "note", "dnf install moby-engine"),
    (known(**NO_DOCKER, os_id="alpine"), "docker-engine", "note", "apk add docker"),
    (known(**NO_DOCKER, dockerd="/x", service_manager="yes"), "docker-engine", "problem", "systemctl start"),
    (known(**NO_DOCKER, os_id="arch"), "docker-engine", "note", "the system's package manager"),
    (known(**STOPPED, service_manager="yes", os_id="alpine"), "docker-engine", "problem", "rc-service docker start"),
    (known(**STOPPED, **PI_USER), "docker-engine", "problem", "ansible_become"),
    (known(memory_limit_bytes=str(256 << 20)), "memory-limit", "note", "MemoryMax="),
    (known(memory_cgroup="off"), "memory-cgroup", "note", "update-grub"),
    (known(memory_cgroup="off", os_id="rhel fedora"), "memory-cgroup", "note", "grubby"),
    (known(memory_cgroup="off", os_id="alpine"), "memory-cgroup", "note", "boot the kernel"),
    (known(memory_cgroup="off", boot_file="/boot/c.txt"), "memory-cgroup", "note", "cgroup_enable=memory"),
    (known(qemu__system__x86_64=""), "qemu", "note", "qemu-system-x86"),
    (known(kvm_device="absent", virtual="yes"), "kvm", "note", "nest"),
    (known(**NO_KVM, cpu_can_virtualise="yes"), "kvm", "note", "sudo modprobe kvm_intel"),
    (known(**NO_KVM, virtual="yes", cpu_can_virtualise="yes"), "kvm", "note", "sudo modprobe kvm_intel"),
    (known(**NO_KVM), "kvm", "note", "enable VT-x or AMD-V"),
    (known(**NO_KVM, **ARM), "kvm", "note", "bare metal"),
    (known(**NO_KVM, **ARM, board="Raspberry Pi 4 Model B Rev 1.4"), "kvm", "note", "64-bit kernel"),
    (known(kvm_device="denied", **ALPINE_USER), "kvm", "note", "sudo addgroup ann kvm"),
    (known(kvm_device="denied"), "kvm", "note", "usermod -aG kvm"),
    (known(tun="no"), "tap", "note", "ansible_become"),
    (known(**PI_USER), "sudo", "note", "NOPASSWD"),
    (known(**PI_USER, sudo=""), "sudo", "note", "apt-get install sudo as root"),
    (known(**PI_USER, sudo_works="yes"), "sudo", "note", "ansible_become: true"),
    (known(throttled="under-voltage"), "throttled", "problem", "power supply"),
    (known(throttled="throttled, under-voltage before"), "throttled", "problem", "power supply"),
    (known(throttled="under-voltage before"), "throttled", "note", "until the next boot"),
    (known(thermal_throttles="24"), "throttled", "note", "fan"),
    (known(cpu_quota="0.5"), "cpu-quota", "note", "cpu.max"),
    (known(governor="powersave"), "governor", "note", "performance"),
    (known(load="3.5"), "busy", "note", "end what else"),
    (known(clock="unsynchronised"), "clock-unsynchronised", "note", "chrony"),
    (known(-5 * 10**9), "clock-offset", "note", "synchronise"),
    (known(memory_available_bytes="1000"), "memory-floor", "problem", "coldstart_memory_floor"),
    (known(disk_free_bytes="1000"), "disk-floor", "problem", "coldstart_disk_floor"),
    (known(docker_root_free_bytes="1000"), "disk-floor", "problem", "docker image prune"),
    (known(swept=("process 7",)), "swept", "note", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "kind", "severity", "remedy"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_finding(node: Known, kind: str, severity: str, remedy: str):
    """With the severity it deserves and the next step."""
    found = {finding.kind: finding for finding in findings(node)}
    assert kind in found, found
    assert found[kind].severity == severity
    assert remedy in found[kind].remedy


def test_what_a_node_may_not_run_is_not_missed():
    """coldstart_runtimes: [process]: nobody wants an engine there."""
    assert findings(known(runtimes=("process",), **NO_DOCKER, qemu__system__x86_64="", kvm_device="absent")) == []


def test_what_is_said_agrees_with_what_is_known():
    """Root without a service manager borrows an engine; one shortage of one disk is told once; a limit above what is
    free anyway is none; a past complaint is not told as a present one."""
    assert findings(known(**STOPPED)) == []
    short = findings(known(disk_free_bytes="1000", docker_root_free_bytes="1000"))
    assert [finding.kind for finding in short] == ["disk-floor"]
    assert findings(known(memory_limit_bytes=str(8 << 30))) == []
    assert findings(known(runtimes=("process",), docker_root_free_bytes="1000")) == []
    both = findings(known(throttled="throttled, under-voltage before"))
    assert [finding.text for finding in both] == ["the firmware slows the processor: throttled"]
    assert "used up 9 times" in findings(known(cpu_quota="0.5", cpu_throttled_periods="9"))[0].text


@pytest.mark.parametrize("name", ["arch", "docker_group", "memory_available_bytes", "load", "os_id", "kvm_device"])
def test_a_fact_that_is_absent_is_no_error(name: str):
    """Every rule does with what could be read."""
    for node, *_ in CASES:
        facts = {key: value for key, value in node.facts.items() if key != name}
        assert all(finding.remedy for finding in findings(dataclasses.replace(node, facts=facts)))
    assert isinstance(findings(Known({}, Floors(MEMORY_BYTES, DISK_BYTES, 1), RUNTIMES)), list)


def test_a_raspberry_pi_as_it_comes():
    """Problems first; what it is in one line, each remedy below its finding."""
    facts = {
        **GOOD, **PI_USER, "arch": "aarch64", "board": "Raspberry Pi 4 Model B Rev 1.4", "docker": "denied",
        "memory_cgroup": "off", "boot_file": "/boot/firmware/cmdline.txt", "kvm_device": "denied",
        "governor": "ondemand",
        "qemu-system-aarch64": "/usr/bin/qemu-system-aarch64", "throttled": "under-voltage before", "net_admin": "no",
    }  # fmt: skip
    found = findings(Known(facts, Floors(MEMORY_BYTES, DISK_BYTES, 1), RUNTIMES))
    kinds = [finding.kind for finding in found]
    assert kinds == ["docker-permission", "memory-cgroup", "kvm", "tap", "sudo", "throttled", "governor"]
    result = Checked("pi01", "edge", True, "ssh-ed25519 SHA256:x", facts, tuple(found), 0, 150_000, 300_000)  # noqa: FBT003
    text = checked.as_text([result, Checked("vm", "cloud", reachable=False, findings=(UNREACHABLE,))])
    assert text.startswith(
        "edge/pi01: aarch64; Raspberry Pi 4 Model B Rev 1.4; 4 cores, 8.00 GiB; Python 3.11.2; Docker"
    )
    assert "    -> add `cgroup_enable=memory cgroup_memory=1` to the one line of /boot/firmware/cmdline.txt" in text
    assert "cloud/vm: could not be checked\n  problem unreachable: no route\n    -> is it up?\n" in text
    assert text.endswith("1 of 2 nodes checked; 2 problems, 6 notes\n")


def recorded(name: str):
    """What a parser makes of a text of tests/facts."""
    case = json.loads((CASES_OF_FACTS / f"{name}.json").read_text())
    return next(
        getattr(module, case["parser"])(case["text"])
        for module in (agent_floors, surveyparse)
        if hasattr(module, case["parser"])
    )


def test_a_raspberry_pi_from_its_texts_to_words():
    """Raspberry Pi OS as it boots, read by the parsers, judged and told: nothing on the way loses what was there."""
    assert recorded("capabilities-pi4-user") == 0
    facts = {
        **GOOD, **PI_USER, "arch": "aarch64", "board": "Raspberry Pi 4 Model B Rev 1.4", "net_admin": "no",
        "qemu-system-aarch64": "/usr/bin/qemu-system-aarch64", "boot_file": "/boot/firmware/cmdline.txt",
        "os_id": recorded("os-ids-pi"),
        "throttled": recorded("throttled-pi4-hot"),
        "memory_cgroup": recorded("memory-controller-pi4-v2"),
        "memory_available_bytes": str(recorded("memory-available-pi4")),
        "sudo_works": recorded("sudo-password"),
        "docker": "denied",
    }  # fmt: skip
    known_pi = Known(facts, Floors(MEMORY_BYTES, DISK_BYTES, 1), RUNTIMES, -3 * 10**9, 150_000)
    text = checked.as_text(
        [Checked("pi01", "edge", reachable=True, facts=facts, findings=tuple(findings(known_pi)), rtt_ns=300_000)],
        width=200,
    )
    for line in (
        "  problem docker-permission: this user may not use Docker (/var/run/docker.sock)\n"
        "    -> sudo usermod -aG docker pi, then log in again\n",
        "  problem throttled: the firmware slows the processor: soft temperature limit\n",
        "  note memory-cgroup: the memory control group is off: no memory figures or limits\n"
        "    -> add `cgroup_enable=memory cgroup_memory=1` to the one line of /boot/firmware/cmdline.txt",
        "  note clock-offset: its wall clock is 3.00 s behind this machine's\n",
        "    -> `pi ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/coldstart, then ansible_become: true\n",
    ):
        assert line in text, text
    assert "memory-floor" not in text


def test_what_a_node_says_cannot_steer_the_terminal():
    """Names of boards and systems are other people's text."""
    text = checked.as_text([Checked("a", "s", reachable=True, facts={"os": "\x1b[2Jevil\x07 Linux"})])
    assert "?[2Jevil? Linux" in text
    assert all(character.isprintable() or character == "\n" for character in text)


UNREACHABLE = Finding("unreachable", "problem", "no route", "is it up?")


def test_as_json():
    """Shapes that scripts can rely on."""
    results = [
        Checked("a", "s", reachable=True, host_key="k", facts={"arch": "x"}, offset_ns=5, bound_ns=6, rtt_ns=7),
        Checked("b", "s", reachable=False, findings=(UNREACHABLE,)),
    ]
    one, other = json.loads(checked.as_json(results))["nodes"]
    assert one == {
        "node": "a", "site": "s", "reachable": True, "host_key": "k", "facts": {"arch": "x"},
        "clock": {"offset_ns": 5, "bound_ns": 6, "rtt_ns": 7}, "findings": [],
    }  # fmt: skip
    assert (other["reachable"], other["clock"], other["findings"][0]["kind"]) == (False, None, "unreachable")


def test_the_exit_code_tells_who_could_not_be_asked():
    """Findings are no failure: what a node lacks is skipped there."""
    judge([Checked("a", "s", reachable=True, findings=(UNREACHABLE,))])
    with pytest.raises(NodeError, match="1 of 2 nodes could not be checked: b"):
        judge([Checked("a", "s", reachable=True), Checked("b", "s", reachable=False)])


def test_the_page_names_every_kind():
    """Those of the rules, those of a connection that cannot be had, and no others."""
    root = Path(diagnosis.__file__).parent
    rules = set(re.findall(r'Finding\(\s*f?"([a-z-]+)"', (root / "diagnosis.py").read_text())) | {
        "memory-floor",
        "disk-floor",
    }
    doors = "".join(
        (root / name).read_text() for name in ("ssh.py", "sshlink.py", "hostkeys.py", "link.py", "nodetask.py")
    )
    connection = set(re.findall(r'kind(?:: str)?="([a-z-]+)"', doors)) | set(
        re.findall(r'", "([a-z]+-[a-z-]+)", "', doors)
    )
    connection |= {"host-key-unknown", "host-key-changed", "unreachable"}
    listed = set(re.findall(r"^\| `([a-z-]+)`", DOCS.read_text(), re.MULTILINE))
    assert rules <= listed, rules - listed
    assert listed - rules <= connection | {"python-too-old", "no-python", "sudo-password", "sudo-absent"}
    assert connection - {"floor"} <= listed, connection - listed
