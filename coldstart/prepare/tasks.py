"""What is missing on a node, as steps: a State becomes a plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from coldstart.agent import runtimes
from coldstart.packages import ALPINE, DEBIAN, ELSEWHERE, FEDORA, RHEL
from coldstart.prepare import FAILED, NOT_APPLICABLE, OK, TASKS, WOULD_CHANGE
from coldstart.prepare.state import OPENRC, SYSTEMD, State

OLDEST_PYTHON = (3, 9)
BOOT_WORDS = ("cgroup_enable=memory", "cgroup_memory=1")
# conffiles of the user's are kept, a lock is waited for, nothing of the user's is removed or restarted.
_APT = ("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", "LC_ALL=C", "apt-get")
_APT_OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
_DNF = ("env", "LC_ALL=C", "dnf", "install", "-y", "--setopt=install_weak_deps=False")
_INSTALL: Mapping[str, tuple[str, ...]] = {
    DEBIAN: (*_APT, "install", "-y", "--no-install-recommends", "--no-remove", *_APT_OPTIONS),
    FEDORA: _DNF,
    RHEL: _DNF,
    ALPINE: ("apk", "add", "--update-cache"),
}
_RUNTIME_TASKS = ("docker", "podman", "qemu")  # each for the runtime of its name


@dataclass(frozen=True)
class Step:
    """words: what it does; argv: how, as root. may_fail: the steps after it are tried all the same."""

    words: str
    argv: tuple[str, ...]
    may_fail: bool = False
    installs: str = ""  # a package

    @property
    def shown(self) -> str:
        """With the command; what only sets its environment is left out."""
        return f"{self.words} ({re.sub('^env( [A-Z_]+=[^ ]+)+ ', '', ' '.join(self.argv))})"


@dataclass(frozen=True)
class Task:
    """What one task comes to on a node: `ok`, `would-change` with its steps, `failed` or `not-applicable` with why."""

    name: str
    state: str = OK
    steps: tuple[Step, ...] = ()
    note: str = ""


def plan(state: State, wanted: Sequence[str], allowed: Sequence[str]) -> list[Task]:
    """wanted: tasks by name, in any order; none: all that apply. allowed: the runtimes that the node may run; for one
    that is not among them nothing is installed unless its task was named."""
    names = [name for name in TASKS if name in wanted or (not wanted and _is_of_use(name, allowed))]
    found = [_TASKS[name](state, names) for name in names]
    return _with_preparation(state, [replace(task, state=WOULD_CHANGE) if task.steps else task for task in found])


def _is_of_use(name: str, allowed: Sequence[str]) -> bool:
    return name not in _RUNTIME_TASKS or (name in allowed and name in runtimes.names())


def _with_preparation(state: State, tasks: list[Task]) -> list[Task]:
    """apt's lists are brought up to date once, before the first package that they may not know."""
    packages = [step.installs for task in tasks for step in task.steps if step.installs]
    if state.family != DEBIAN or not packages:
        return tasks
    before: list[Step] = []
    if state.dpkg_was_interrupted:
        # Or another one is under way: then this fails, and apt waits for it.
        before.append(Step("finish an installation that was cut short", ("dpkg", "--configure", "-a"), may_fail=True))
    if not all(state.knows(package) for package in packages):
        argv = (*_APT, "update", "-o", "APT::Update::Error-Mode=any")
        before.append(Step("bring the package lists up to date", argv, may_fail=True))
    first = next(index for index, task in enumerate(tasks) if any(step.installs for step in task.steps))
    tasks[first] = replace(tasks[first], steps=(*before, *tasks[first].steps))
    return tasks


def _install(state: State, name: str, wanted: str) -> Task:
    package = state.distribution.package(wanted)
    if not package:
        return Task(name, NOT_APPLICABLE, note=ELSEWHERE[wanted])
    step = Step(f"install {package}", (*_INSTALL[state.family], package), installs=package)
    return Task(name, steps=(step,))


# -- the tasks: of a state, and of the names of all tasks that are done with this one


def _python(state: State, names: Sequence[str]) -> Task:
    named = state.interpreter not in ("python3", "/usr/bin/python3")
    if state.python is None and not named:
        return _install(state, "python", "python")
    hint = "install 3.9 or later there, and name it in ansible_python_interpreter"
    if state.python is None:
        return Task("python", FAILED, note=f"no Python at {state.interpreter}: {hint}")
    if state.python < OLDEST_PYTHON:
        version = ".".join(map(str, state.python))
        return Task("python", FAILED, note=f"{state.interpreter} is {version}, too old: {hint}")
    return Task("python")


def _docker(state: State, names: Sequence[str]) -> Task:
    task = Task("docker") if state.has_engine else _install(state, "docker", "docker")
    if task.state != OK:
        return task
    is_new = bool(task.steps)
    if not state.manager:
        note = "no service manager here: a sweep as root starts the engine for itself"
        return replace(task, note=note)
    if not is_new and (state.engine_runs or not state.engine_is_managed):
        return task
    return replace(task, steps=(*task.steps, *_START[state.manager]))


_START = {
    SYSTEMD: (
        Step("have Docker started now and at every boot", ("systemctl", "enable", "--now", "docker.service")),
    ),
    OPENRC: (
        Step("have Docker started at every boot", ("rc-update", "add", "docker", "default")),
        Step("start Docker", ("rc-service", "docker", "start")),
    ),
}  # fmt: skip


def _podman(state: State, names: Sequence[str]) -> Task:
    there = state.has("/usr/bin/podman", "/usr/local/bin/podman")
    return Task("podman") if there else _install(state, "podman", "podman")


def _qemu(state: State, names: Sequence[str]) -> Task:
    program = f"qemu-system-{state.arch}"
    if state.arch not in ("x86_64", "aarch64"):
        return Task("qemu", NOT_APPLICABLE, note=f"no machine's image is for {state.arch}")
    there = state.has(f"/usr/bin/{program}", f"/usr/local/bin/{program}")
    return Task("qemu") if there else _install(state, "qemu", f"qemu-{state.arch}")


def _groups(state: State, names: Sequence[str]) -> Task:
    if state.user == "root":
        return Task("groups", NOT_APPLICABLE, note="root needs none")
    comes = "docker" in names and bool(state.distribution.package("docker"))
    steps: list[Step] = []
    if state.has_engine or comes:
        if state.has_engine and "docker" not in state.groups:
            steps.append(_new_group(state, "docker"))
        steps += _join(state, "docker")
    if "kvm" in state.groups and state.has("/dev/kvm") and not state.can_use_kvm:
        steps += _join(state, "kvm")
    note = "counts from the next login on; who is in group docker is as good as root there" if steps else ""
    return Task("groups", steps=tuple(steps), note=note)


def _join(state: State, group: str) -> list[Step]:
    if state.user in state.groups.get(group, ()):
        return []
    alpine = ("addgroup", state.user, group)
    argv = alpine if state.family == ALPINE else ("usermod", "-aG", group, state.user)
    return [Step(f"put {state.user} into group {group}", argv)]


def _new_group(state: State, group: str) -> Step:
    """The engine finds it when it is restarted, which is the user's to do: containers end with it."""
    argv = ("addgroup", "-S", group) if state.family == ALPINE else ("groupadd", "--system", group)
    return Step(f"make group {group}, for the engine to find when you restart it", argv)


def _memory_cgroup(state: State, names: Sequence[str]) -> Task:
    if not state.distribution.is_pi:
        return Task("memory-cgroup", NOT_APPLICABLE, note="only Raspberry Pi OS boots without it")
    if state.memory_cgroup != "off":
        return Task("memory-cgroup")
    if not state.boot_file:
        return Task("memory-cgroup", FAILED, note="no cmdline.txt found: add `cgroup_enable=memory` to the kernel's")
    words = state.file(state.boot_file).split()
    missing = " ".join(word for word in BOOT_WORDS if word not in words)
    if not missing:
        return Task("memory-cgroup", note="reboot it: it counts from then on")
    # The first line is the kernel's; what is added last counts. The file as it was stays beside it.
    argv = ("sed", "-i.before-coldstart", f"1s/[[:space:]]*$/ {missing}/", state.boot_file)
    step = Step(f"add `{missing}` to {state.boot_file}", argv)
    return Task("memory-cgroup", steps=(step,), note="then reboot it: it counts from then on")


_TASKS: Mapping[str, Callable[[State, Sequence[str]], Task]] = {
    "python": _python,
    "docker": _docker,
    "podman": _podman,
    "qemu": _qemu,
    "groups": _groups,
    "memory-cgroup": _memory_cgroup,
}


def refusal(state: State) -> tuple[str, str]:
    """Why nothing can be planned for this system, and the next step; empty if it can."""
    found = state.distribution
    if found.family:
        return "", ""
    said = f"{found.name or 'no /etc/os-release'} (ID={' '.join(found.ids)})" if found.ids else "no /etc/os-release"
    kind = (
        " is an image that packages are not installed into" if "OSTREE_VERSION" in state.file("/etc/os-release") else ""
    )
    return f"{said}{kind or ': not a distribution that is known here'}", (
        "known: Debian, Ubuntu, Raspberry Pi OS, Fedora, RHEL and its relatives, Alpine; "
        "elsewhere install by hand what `coldstart check` misses"
    )
