"""A node made ready: asked, planned and carried out, on nodes in memory of every family."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
from fakenode import DEBIANS, OS_RELEASE, FakeNode
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart.errors import NodeError
from coldstart.model import Node, TaskReport
from coldstart.prepare import TASKS
from coldstart.prepare.localshell import LocalShell
from coldstart.prepare.shell import Ran, reason
from coldstart.prepare.work import Plan, Work

NAMED = {
    "arch": "Arch Linux (ID=arch): not a distribution that is known",
    "suse": "openSUSE Leap 15.6 (ID=opensuse-leap suse opensuse)",
    "amazon": "Amazon Linux 2023.5.20241001 (ID=amzn fedora)",
    "silverblue": "Fedora Linux 41 (Silverblue) (ID=fedora) is an image",
    "none": "no /etc/os-release",
}
RUNTIMES = ("process", "docker", "qemu")


def node(**settings: object) -> Node:
    return Node("pi01", settings={"ansible_become": True, "coldstart_runtimes": RUNTIMES, **settings})


def bare(system: str = "debian", **more: Any) -> FakeNode:
    """Nothing is installed there."""
    return FakeNode(system, installed=set(), **more)


def work(shell: FakeNode, *tasks: str, **settings: object) -> Work:
    return Work(node(**settings), shell, tasks)


def done(shell: FakeNode, *tasks: str, **settings: object) -> dict[str, TaskReport]:
    """Planned and carried out."""
    job = work(shell, *tasks, **settings)
    return {report.task: report for report in job.carry_out(job.plan(), lambda line: None, threading.Event())}


def steps(shell: FakeNode, *tasks: str, **settings: object) -> list[str]:
    """In words."""
    return [step.words for step in work(shell, *tasks, **settings).plan().steps]


SHELLS = st.builds(
    FakeNode,
    system=st.sampled_from(sorted(set(OS_RELEASE) - set(NAMED))),
    arch=st.sampled_from(["x86_64", "aarch64", "armv7l"]),
    user=st.sampled_from(["root", "pi"]),
    installed=st.sets(st.sampled_from(["/usr/bin/python3", "/usr/bin/dockerd", "/usr/bin/qemu-system-x86_64"])),
    groups=st.dictionaries(st.sampled_from(["docker", "kvm"]), st.sets(st.sampled_from(["pi", "ann"]))),
    manager=st.sampled_from(["", "systemd", "openrc"]),
    running=st.booleans(),
    kvm=st.booleans(),
    lists=st.booleans(),
    memory=st.booleans(),
    interrupted=st.booleans(),
)


@settings(max_examples=60)
@given(SHELLS, st.booleans(), st.sets(st.sampled_from(TASKS)))
def test_what_was_done_need_not_be_done_again(shell: FakeNode, is_pi: bool, tasks: set[str]):
    """Whatever was there: a plan changes nothing; carried out, nothing has failed, and a second plan is empty."""
    shell.is_pi = is_pi and shell.system in DEBIANS
    before = copy.deepcopy(shell)
    work(shell, *tasks).plan()
    before.asked = shell.asked
    assert shell == before
    reports = done(shell, *tasks)
    assert {report.state for report in reports.values()} <= {"ok", "changed", "not-applicable"}, reports
    again = work(shell, *tasks).plan()
    assert again.steps == []


@settings(max_examples=30)
@given(SHELLS)
def test_only_root_changes_something(shell: FakeNode):
    """Whoever may not is told before the first step; to look, nobody needs to be root."""
    plan = work(shell, ansible_become=False).plan()
    assert (plan.refused is not None) == (shell.user != "root" and bool(plan.steps))
    assert not any(argv[0] == "sudo" for argv in shell.asked)


def test_a_bare_debian():
    """The lists once, before the first package; each step with its command."""
    shell = bare(user="pi", manager="systemd")
    plan = work(shell).plan()
    assert [step.shown.partition(" -o ")[0] for step in plan.steps] == [
        "bring the package lists up to date (apt-get update",
        "install python3 (apt-get install -y --no-install-recommends --no-remove",
        "install docker.io (apt-get install -y --no-install-recommends --no-remove",
        "have Docker started now and at every boot (systemctl enable --now docker.service)",
        "install qemu-system-x86 (apt-get install -y --no-install-recommends --no-remove",
        "put pi into group docker (usermod -aG docker pi)",
    ]
    assert {name: report.state for name, report in done(shell).items()} == {
        "python": "changed", "docker": "changed", "qemu": "changed", "groups": "changed",
        "memory-cgroup": "not-applicable",
    }  # fmt: skip
    assert shell.running
    assert all(argv[:3] == ("sudo", "-n", "--") for argv in shell.asked if {"apt-get", "usermod"} & set(argv))


@pytest.mark.parametrize(
    ("system", "arch", "packages"),
    [
        ("ubuntu", "aarch64", ["python3", "docker.io", "qemu-system-arm"]),
        ("mint", "x86_64", ["python3", "docker.io", "qemu-system-x86"]),
        ("fedora", "x86_64", ["python3", "moby-engine", "qemu-system-x86-core"]),
        ("fedora", "aarch64", ["python3", "moby-engine", "qemu-system-aarch64-core"]),
        ("alpine", "x86_64", ["python3", "docker", "qemu-system-x86_64"]),
        *((system, "x86_64", ["python3"]) for system in ("rhel", "rocky", "alma", "stream", "oracle")),
    ],
)
def test_packages_by_family(system: str, arch: str, packages: list[str]):
    """What each distribution calls them; what it lacks is said with another way to it."""
    plan = work(bare(system, arch=arch, lists=True)).plan()
    assert [step.installs for step in plan.steps if step.installs] == packages
    missing = [task.note for task in plan.tasks if task.state == "not-applicable" and task.name in ("docker", "qemu")]
    assert len(missing) == (0 if len(packages) == 3 else 2)
    assert all("not in this distribution: " in note for note in missing)


@pytest.mark.parametrize("system", NAMED)
def test_an_unknown_distribution(system: str):
    """Refused, naming what was found and what is known; nothing further is asked."""
    shell = FakeNode(system)
    with pytest.raises(NodeError) as refused:
        work(shell).plan()
    assert "known: Debian" in refused.value.hint
    assert NAMED[system] in refused.value.message
    assert not any("apt" in argv[0] for argv in shell.asked)


def test_a_raspberry_pi():
    """Its kernel's line gets what it lacks, at its end; a reboot is asked for and not made."""
    shell = FakeNode("debian", is_pi=True, arch="aarch64", user="pi", lists=True)
    report = done(shell, "memory-cgroup")["memory-cgroup"]
    assert (report.state, report.note) == ("changed", "then reboot it: it counts from then on")
    assert shell.cmdline == "console=tty1 root=PARTUUID=1 rootwait cgroup_enable=memory cgroup_memory=1\n"
    again = done(shell, "memory-cgroup")["memory-cgroup"]
    assert (again.state, again.note) == ("ok", "reboot it: it counts from then on")
    assert work(shell).plan().distribution == "Raspberry Pi OS (Debian GNU/Linux 12 (bookworm))"


@pytest.mark.parametrize("line", ["a=1 rootwait\n", "a=1 rootwait", "a=1 rootwait  \n\n"])
def test_the_kernel_s_line_in_a_real_file(tmp_path: Path, line: str):
    """By sed itself: one line stays one line, and the file as it was is beside it."""
    shell = FakeNode("debian", is_pi=True, user="pi", cmdline="rootwait cgroup_memory=1\n")
    (step,) = work(shell, "memory-cgroup").plan().steps
    file = tmp_path / "cmdline.txt"
    file.write_text(line)
    assert LocalShell().run([*step.argv[:-1], str(file)]).code == 0
    assert file.read_text().split("\n", 1)[0] == "a=1 rootwait cgroup_enable=memory"
    assert file.read_text().count("\n") == line.count("\n")
    assert file.with_name("cmdline.txt.before-coldstart").read_text() == line


def test_which_tasks_are_done():
    """Those that were named, in an order of ours; else all, but for runtimes that the node may not run or that this
    version does not have."""
    shell = bare(lists=True)
    assert [task.name for task in work(shell, "qemu", "python").plan().tasks] == ["python", "qemu"]
    kept = work(shell, coldstart_runtimes=("process", "qemu")).plan().tasks
    assert [task.name for task in kept] == ["python", "qemu", "groups", "memory-cgroup"]
    assert steps(shell, "podman", coldstart_runtimes=("process",)) == ["install podman"]
    elsewhere = work(shell, coldstart_docker_host="unix:///run/other.sock").plan().tasks
    assert [task.name for task in elsewhere] == ["python", "qemu", "groups", "memory-cgroup"]


def test_engines_that_are_there_are_left_alone():
    """A socket, a snap, one that is masked: no second engine, no start."""
    assert steps(FakeNode(installed={"/run/docker.sock"}, manager="systemd"), "docker") == []
    masked = FakeNode(installed={"/usr/bin/dockerd"}, manager="systemd", refuses={"systemctl is-enabled": "masked"})
    assert steps(masked, "docker") == []
    stopped = FakeNode(installed={"/usr/bin/dockerd"}, manager="systemd")
    assert steps(stopped, "docker") == ["have Docker started now and at every boot"]
    openrc = FakeNode("alpine", installed={"/usr/bin/dockerd"}, manager="openrc")
    assert steps(openrc, "docker") == ["have Docker started at every boot", "start Docker"]


def test_pythons():
    """One that was named cannot be installed; an old one cannot be mended; both are said."""
    assert done(FakeNode(python="3.7.3"), "python")["python"].note.startswith("python3 is 3.7, too old")
    shell = bare(refuses={"/opt/python": "no such file"})
    missing = done(shell, "python", ansible_python_interpreter="/opt/python")["python"]
    assert (missing.state, missing.note.partition(":")[0]) == ("failed", "no Python at /opt/python")


def test_groups():
    """The login user's, also where sudo does the work; a group that is missing is made; kvm only where it helps."""
    assert steps(FakeNode(user="pi", kvm=True), "groups") == ["put pi into group kvm"]
    assert steps(FakeNode(user="pi"), "groups") == []
    shell = FakeNode("alpine", user="ann", installed={"/usr/bin/dockerd"})
    assert steps(shell, "groups") == [
        "make group docker, for the engine to find when you restart it", "put ann into group docker",
    ]  # fmt: skip
    assert done(shell, "groups")["groups"].state == "changed"
    assert shell.groups["docker"] == {"ann"}


APT = "E: Failed to fetch http://deb.debian.org/x.deb  Temporary failure resolving 'deb.debian.org'"


@pytest.mark.parametrize(
    ("said", "text", "hint"),
    [
        (
            f"{APT}\nE: Unable to fetch some archives, maybe run apt-get update?",
            "no network: E: Failed to fetch",
            "online",
        ),
        ("E: Unable to locate package docker.io", "package not found: E: Unable to locate", "package sources"),
        ("No match for argument: moby-engine\nError: Unable to find a match: moby-engine", "package not found", ""),
        ("ERROR: unable to select packages:\n  docker (no such package):", "package not found", "community"),
        ("dpkg: error: cannot copy: failed to write (No space left on device)\nE: Sub-process", "disk full", "df -h"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk full", "df -h"),
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)",
            "another package manager",
            "wait",
        ),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "an earlier", "--configure -a"),
        ("E: Packages need to be removed but remove is disabled.", "it does not go together", "by hand"),
        ("noise\nE: Something new", "E: Something new", "run it there by hand: env"),
        ("", "exit code 100", "by hand"),
    ],
)
def test_why_a_step_failed(said: str, text: str, hint: str):
    """In one line, with the next step; the tasks after it are done all the same."""
    report = done(bare(lists=True, refuses={"apt-get install": said}), "python")["python"]
    assert report.state == "failed"
    assert report.note.startswith(text)
    assert hint in report.note
    assert "\n" not in report.note


def test_what_dpkg_said_is_on_stdout():
    """apt gives it a terminal, and itself only says that it failed."""
    apt = "E: Sub-process /usr/bin/dpkg returned an error code (1)"
    full = "dpkg: error processing archive x.deb (--unpack):\n failed to write (No space left on device)\nErrors were:"
    assert reason(["apt-get"], Ran(100, full, apt))[0] == "disk full: failed to write (No space left on device)"
    other = "Setting up x\ndpkg: error processing package x (--configure):\nErrors were encountered"
    assert reason(["apt-get"], Ran(100, other, apt))[0] == "dpkg: error processing package x (--configure):"


def test_lists_that_cannot_be_renewed():
    """The installation is tried with those there are, and what failed before is said with it."""
    shell = bare(refuses={"apt-get update": APT})
    report = done(shell, "python")["python"]
    assert report.state == "failed"
    assert report.note.startswith("bring the package lists up to date: no network: ")
    assert "package not found" in report.note


SUDO = "sudo: a password is required"


def test_sudo_that_asks():
    """Known before anything is done, and only asked for if there is something to do."""
    plan = work(bare(user="pi", sudo=SUDO)).plan()
    assert plan.refused
    assert plan.refused.kind == "sudo-password"
    assert work(FakeNode(user="pi", sudo=SUDO), "python").plan().refused is None


def test_steps_that_mend_nothing():
    """A second look decides: all went well, and it is still missing."""
    report = done(bare(lists=True, is_useless=True), "python", "qemu")["python"]
    assert (report.state, report.note) == ("failed", "all steps were done, and there is still to do: install python3")


def test_interrupted():
    """No further step begins."""
    shell, stopped = bare(lists=True, manager="systemd"), threading.Event()
    job = work(shell)
    reports = job.carry_out(job.plan(), lambda line: stopped.set(), stopped)
    assert [report.state for report in reports if report.steps] == ["changed", "would-change", "would-change"]
    assert shell.installed == {"/usr/bin/python3"}


def test_a_plan_is_data():
    """Two of the same node are the same."""
    shell = bare()
    assert isinstance(work(shell).plan(), Plan)
    assert work(shell).plan() == work(shell).plan()
