"""scripts/setup.sh on pretended machines: a folder for /, and commands that only note how they were called."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"
REAL = """
    cat chmod cp cut dirname env find grep head mkdir readlink rm sed sh sha256sum sort stat tail touch tr true
"""

PYTHON = """#!/bin/sh
case "$*" in
*version_info*'<'*) [ -z "$PRETEND_OLD_PYTHON" ] ;;
*ensurepip*venv*) [ -z "$PRETEND_NO_ENSUREPIP" ] ;;
*python%d*) echo python3.12-venv ;;
*'-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*'pip install'*) echo "$*" >>"$CALLS"; touch .venv/bin/coldstart; chmod +x .venv/bin/coldstart ;;
--version) echo Python 3.9.1 ;;
esac
"""
# The last argument of apt-get is a package.
APT = """#!/bin/sh
echo "apt-get $*" >>"$CALLS"
for package; do :; done
[ "$package" != "$PRETEND_APT_FAILS_FOR" ]
"""
FAKES = {
    "python3": PYTHON,
    "apt-get": APT,
    "id": '#!/bin/sh\n[ "$1" = -u ] && echo "$PRETEND_UID" || echo joe\n',
    "uname": "#!/bin/sh\necho x86_64\n",
    "dpkg-query": '#!/bin/sh\nfor package; do :; done\n[ "$package" = "$PRETEND_PACKAGE" ] && echo installed\n',
    "tcpdump": "#!/bin/sh\n",
    "iptables": "#!/bin/sh\n",
    "cc": "#!/bin/sh\n",
    "busybox": "#!/bin/sh\n",
    "csh": "#!/bin/sh\n",
    "depmod": "#!/bin/sh\n",
    "fish": "#!/bin/sh\n",
    "ip": "#!/bin/sh\n",
    "mke2fs": "#!/bin/sh\n",
    "ssh": "#!/bin/sh\n",
    "sshd": "#!/bin/sh\n",
    "podman": "#!/bin/sh\n",
    "sudo": "#!/bin/sh\nexit 1\n",
    "qemu-aarch64": "#!/bin/sh\n",
    "qemu-img": "#!/bin/sh\n",
    "qemu-system-x86_64": "#!/bin/sh\n",
    "qemu-system-aarch64": "#!/bin/sh\n",
}
KERNELS = '#!/bin/sh\necho "kernels.sh $*" >>"$CALLS"\n[ "$1" != "$PRETEND_NO_KERNEL_FOR" ]\n'
SUDO = '#!/bin/sh\necho "sudo $*" >>"$CALLS"\n[ "$1" != -n ] || shift\nexec "$@"\n'
SUDO_WANTS_PASSWORD = '#!/bin/sh\n[ "$1" != -n ]\n'


@dataclass
class Machine:
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def fs(self) -> Path:
        return self.folder / "fs"

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""

    def command(self, name: str, text: str = "#!/bin/sh\n") -> None:
        self.file(self.folder / "bin" / name, text)

    def file(self, path: Path, text: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.folder / "bin"),
            "HOME": str(self.folder / "home"),
            "COLDSTART_SETUP_ROOT": str(self.fs),
            "CALLS": str(self.folder / "calls"),
            "PRETEND_UID": "0",
            **self.env,
        }

    def setup(self, profile: str = "run") -> subprocess.CompletedProcess[str]:
        """Without a terminal."""
        argv = ["sh", str(self.folder / "scripts" / "setup.sh"), profile]
        return subprocess.run(
            argv,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def setup_on_terminal(self, answer: str) -> str:
        """What the terminal showed."""
        ours, theirs = pty.openpty()
        os.write(ours, f"{answer}\n".encode())
        argv = ["sh", str(self.folder / "scripts" / "setup.sh"), "run"]
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                subprocess.run(
                    argv, env=self.environment(), stdin=theirs, stdout=theirs, stderr=theirs, timeout=20, check=True
                )
            finally:
                os.write(theirs, b"\x04")
                os.close(theirs)
            return drain(terminal.fileno())


def drain(terminal: int) -> str:
    """Everything written; reading a terminal that nobody else holds any more ends in an error."""
    seen = b""
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:
        pass
    return seen.decode()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Fresh, x86_64, Debian, root, no terminal, no engine; the developers' packages are there."""
    machine = Machine(tmp_path)
    machine.file(tmp_path / "scripts" / "setup.sh", SCRIPT.read_text())
    machine.file(tmp_path / "scripts" / "kernels.sh", KERNELS)
    machine.file(tmp_path / "pyproject.toml", "[project]")
    machine.file(tmp_path / "coldstart" / "workloads" / "hello" / "hello.c", "int main;")
    for name, text in FAKES.items():
        machine.command(name, text)
    for name in REAL.split():
        real = shutil.which(name)
        assert real
        (tmp_path / "bin" / name).symlink_to(real)
    return machine


def add_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From inside its folder: a socket's path may have 107 bytes only."""
    path.parent.mkdir(parents=True)
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


# --- what is done ---


def test_a_fresh_machine_gets_an_engine_and_the_package(machine: Machine) -> None:
    """Nothing that is installed may be removed for it."""
    done = machine.setup()
    assert (done.returncode, done.stdout) == (0, "")
    assert "docker.io        a Docker engine: none of any origin found here" in done.stderr
    install = next(line for line in machine.calls.splitlines() if "docker.io" in line)
    assert "--no-install-recommends --no-remove docker.io" in install
    assert "-e ." in machine.calls
    assert "[dev]" not in machine.calls


def test_the_second_time_nothing_is_done_or_said(machine: Machine) -> None:
    machine.file(machine.fs / "usr/sbin/dockerd")
    machine.setup("dev")
    before = machine.calls
    for profile in ("dev", "run"):
        again = machine.setup(profile)
        assert (again.returncode, again.stderr) == (0, "")
    assert machine.calls == before
    assert before.count("pip install") == before.count("[dev]") == 1


@pytest.mark.parametrize("changed", ["pyproject.toml", "hatch_build.py", "coldstart/workloads/hello/hello.c"])
def test_what_the_package_is_made_from_installs_it_anew(machine: Machine, changed: str) -> None:
    machine.setup()
    machine.file(machine.folder / changed, "new")
    machine.setup()
    assert machine.calls.count("pip install") == 2


def test_developers_get_what_tests_need_and_users_do_not(machine: Machine) -> None:
    lab = ("ip", "ssh", "sshd", "sudo", "fish", "csh", "podman", "depmod", "mke2fs")
    for name in ("tcpdump", "iptables", "cc", "qemu-aarch64", "qemu-img", "busybox", *lab):
        (machine.folder / "bin" / name).unlink()
    machine.setup("run")
    assert "tcpdump" not in machine.calls
    machine.setup("dev")
    for packages in ("tcpdump", "iptables", "gcc libc6-dev", "qemu-user", "qemu-utils", "busybox-static"):
        assert f"--no-remove {packages}\n" in machine.calls
    debian = ("iproute2", "openssh-client", "openssh-server", "sudo", "fish", "tcsh", "podman", "kmod", "e2fsprogs")
    for package in debian:
        assert f"--no-remove {package}\n" in machine.calls


def test_the_package_of_the_ssh_server_starts_none(machine: Machine) -> None:
    """By the file that Debian's package looks for; where a server was installed before, nothing is done to it."""
    off = machine.fs / "etc/ssh/sshd_not_to_be_run"
    machine.setup("dev")
    assert not off.exists()
    (machine.folder / "bin" / "sshd").unlink()
    done = machine.setup("dev")
    assert off.exists()
    assert f"this machine's own SSH server stays off, until you rm {off}" in done.stderr


def test_emulators(machine: Machine) -> None:
    """A user's own architecture; developers' tests start both. One that is there, of whatever origin, is left alone."""
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        (machine.folder / "bin" / name).unlink()
    machine.setup("run")
    assert "--no-remove qemu-system-x86\n" in machine.calls
    assert "qemu-system-arm" not in machine.calls
    machine.command("qemu-system-x86_64")
    before = len(machine.calls)
    machine.setup("dev")
    assert "--no-remove qemu-system-arm\n" in machine.calls[before:]
    assert "qemu-system-x86" not in machine.calls[before:]


@pytest.mark.parametrize(
    ("uname", "package"), [("aarch64", "qemu-system-arm"), ("x86_64", "qemu-system-x86"), ("riscv64", "")]
)
def test_the_emulator_of_this_architecture(machine: Machine, uname: str, package: str) -> None:
    machine.command("uname", f"#!/bin/sh\necho {uname}\n")
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        (machine.folder / "bin" / name).unlink()
    machine.setup("run")
    installed = [line.split()[-1] for line in machine.calls.splitlines() if "qemu-system" in line]
    assert installed == [package] * bool(package)


def test_kernels(machine: Machine) -> None:
    """Once, with the package; what it says is shown."""
    machine.setup("run")
    assert [line for line in machine.calls.splitlines() if "kernels" in line] == ["kernels.sh x86_64"]
    machine.setup("run")
    assert machine.calls.count("kernels.sh") == 1
    machine.setup("dev")
    assert "kernels.sh aarch64\n" in machine.calls


def test_no_kernel_is_no_reason_to_fail(machine: Machine) -> None:
    machine.env["PRETEND_NO_KERNEL_FOR"] = "x86_64"
    done = machine.setup("dev")
    assert done.returncode == 0
    assert "set-up: no kernel for the Linux VM of x86_64\n" in done.stderr
    assert "kernels.sh aarch64\n" in machine.calls
    assert "pip install" in machine.calls


def test_a_package_that_cannot_be_had_leaves_the_others(machine: Machine) -> None:
    machine.env["PRETEND_APT_FAILS_FOR"] = "docker.io"
    (machine.folder / "bin" / "tcpdump").unlink()
    done = machine.setup("dev")
    assert done.returncode == 0
    assert "--no-remove tcpdump" in machine.calls
    assert f"not installed: docker.io (apt-get failed: see {machine.folder}/.venv/setup.log)" in done.stderr
    assert "runtime docker: skipped" in done.stderr
    assert "tcpdump: skipped" not in done.stderr


def test_a_venv_whose_interpreter_is_gone_is_made_anew(machine: Machine) -> None:
    machine.setup()
    python = machine.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/gone")
    assert machine.setup().returncode == 0
    assert not python.is_symlink()
    assert machine.calls.count("pip install") == 2


def test_a_moved_venv_is_made_anew(machine: Machine) -> None:
    """Its commands would run those of the folder it came from."""
    machine.setup()
    (machine.folder / ".venv/.home").write_text("/elsewhere\n")
    (machine.folder / ".venv/bin/mypy").touch()
    assert machine.setup().returncode == 0
    assert not (machine.folder / ".venv/bin/mypy").exists()


# --- an engine that is there stays ---


@pytest.mark.parametrize(
    "path",
    ["usr/sbin/dockerd", "usr/local/bin/dockerd", "usr/local/sbin/dockerd", "snap/bin/docker", "opt/docker-desktop"],
)
def test_an_engine_in_its_usual_place_is_kept(machine: Machine, path: str) -> None:
    machine.file(machine.fs / path)
    assert machine.setup().returncode == 0
    assert "apt-get" not in machine.calls


@pytest.mark.parametrize(
    "path", ["fs/var/run/docker.sock", "home/.docker/run/docker.sock", "home/.docker/desktop/docker.sock"]
)
def test_an_engine_with_a_socket_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    add_socket(machine.folder / path, monkeypatch)
    assert machine.setup().returncode == 0
    assert "apt-get" not in machine.calls


def test_a_rootless_engine_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.env["XDG_RUNTIME_DIR"] = str(machine.folder / "user")
    add_socket(machine.folder / "user" / "docker.sock", monkeypatch)
    machine.setup()
    assert "apt-get" not in machine.calls


@pytest.mark.parametrize(
    "env",
    [{"DOCKER_HOST": "tcp://elsewhere:2376"}, *({"PRETEND_PACKAGE": name} for name in ("docker-ce", "podman-docker"))],
)
def test_an_engine_elsewhere_or_stopped_is_kept(machine: Machine, env: dict[str, str]) -> None:
    machine.env |= env
    machine.setup()
    assert "apt-get" not in machine.calls


def test_an_engine_on_path_is_kept(machine: Machine) -> None:
    machine.command("dockerd")
    machine.setup()
    assert "apt-get" not in machine.calls


# --- what may not be done is said, and does not stop it ---


def test_without_rights_or_terminal_it_says_what_is_skipped_and_why(machine: Machine) -> None:
    machine.env["PRETEND_UID"] = "1000"
    (machine.folder / "bin" / "sudo").unlink()
    done = machine.setup()
    assert done.returncode == 0
    assert "not installed: docker.io (not root, and no sudo here)" in done.stderr
    assert "runtime docker: skipped, for lack of docker.io" in done.stderr
    assert "next: sudo apt-get install --no-install-recommends docker.io" in done.stderr
    assert "apt-get" not in machine.calls
    assert "pip install" in machine.calls


def test_a_sudo_that_wants_a_password_is_not_waited_for(machine: Machine) -> None:
    machine.env["PRETEND_UID"] = "1000"
    machine.command("sudo", SUDO_WANTS_PASSWORD)
    done = machine.setup()
    assert done.returncode == 0
    assert "no terminal to ask on" in done.stderr


def test_a_sudo_without_password_is_used(machine: Machine) -> None:
    machine.env["PRETEND_UID"] = "1000"
    machine.command("sudo", SUDO)
    machine.setup()
    assert "sudo -n env DEBIAN_FRONTEND=noninteractive" in machine.calls
    assert "--no-remove docker.io" in machine.calls


def test_skip_leaves_the_system_alone(machine: Machine) -> None:
    machine.env["COLDSTART_SETUP"] = "skip"
    assert "not installed: docker.io (COLDSTART_SETUP=skip)" in machine.setup().stderr
    assert "apt-get" not in machine.calls
    assert "kernels.sh" not in machine.calls


def test_no_apt_get_is_no_reason_to_fail(machine: Machine) -> None:
    (machine.folder / "bin" / "apt-get").unlink()
    done = machine.setup()
    assert done.returncode == 0
    assert "no apt-get here" in done.stderr


# --- asking ---


def test_on_a_terminal_it_asks(machine: Machine) -> None:
    assert "install? [Y/n]" in machine.setup_on_terminal("")
    assert "--no-remove docker.io" in machine.calls


def test_no_is_respected_and_remembered(machine: Machine) -> None:
    assert "runtime docker: skipped" in machine.setup_on_terminal("n")
    second = machine.setup_on_terminal("y")
    assert "install?" not in second
    assert "declined before; to be asked again: rm .venv/.declined" in second
    assert "apt-get" not in machine.calls


def test_under_ci_nobody_is_asked(machine: Machine) -> None:
    machine.env["CI"] = "true"
    assert "install?" not in machine.setup_on_terminal("n")
    assert "--no-remove docker.io" in machine.calls


# --- what it cannot do without ---


def test_an_old_python_is_refused(machine: Machine) -> None:
    machine.env["PRETEND_OLD_PYTHON"] = "yes"
    done = machine.setup()
    assert done.returncode == 1
    assert "no Python 3.11 or newer here (Python 3.9.1)" in done.stderr
    assert "next: Debian 12+" in done.stderr


def test_a_wrong_choice_of_python_is_refused(machine: Machine) -> None:
    machine.env["PYTHON"] = "/not/there"
    done = machine.setup()
    assert done.returncode == 1
    assert "PYTHON=/not/there is not a Python 3.11 or newer" in done.stderr


def test_a_python_without_venv_gets_the_package_of_its_version(machine: Machine) -> None:
    machine.env |= {"PRETEND_NO_ENSUREPIP": "yes", "DOCKER_HOST": "x"}
    done = machine.setup()
    assert "--no-remove python3.12-venv" in machine.calls
    assert done.returncode == 1  # the pretended apt-get brings nothing
    assert "next: sudo apt-get install python3.12-venv" in done.stderr


def test_an_unknown_profile_is_refused(machine: Machine) -> None:
    assert "usage: scripts/setup.sh" in machine.setup("everything").stderr
