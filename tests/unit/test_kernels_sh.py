"""scripts/kernels.sh on pretended machines: a folder for /, and an apt that only notes how it was called."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kernels.sh"
REAL = ("dirname", "find", "grep", "head", "id", "mkdir", "mktemp", "mv", "rm", "sed", "sh", "tail")
FAKES = {
    "uname": "echo x86_64",
    # Its last argument is the package.
    "apt-get": """echo "apt-get $*" >>"$CALLS"
for package; do :; done
[ -z "$PRETEND_OFFLINE" ] || { echo "E: no network" >&2; exit 100; }
case " $* " in *" download "*) echo "$package" >"${package}_1_any.deb" ;; esac""",
    "apt-cache": """echo "apt-cache $*" >>"$CALLS"
[ -z "$PRETEND_OFFLINE" ] || exit 100
for package; do :; done
echo "Package: $package"
echo "Depends: linux-image-6.1.0-9-cloud (= 6.1.9-1), other" """,
}


@dataclass
class Machine:
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> Path:
        return self.folder / "data" / "coldstart" / "kernels"

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""

    def file(self, name: str, text: str = "") -> Path:
        path = self.folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def kernels(self, *architectures: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": str(self.folder / "bin"),
            "HOME": str(self.folder / "home"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "COLDSTART_SETUP_ROOT": str(self.folder / "fs"),
            "CALLS": str(self.folder / "calls"),
            "PRETEND_OFFLINE": "",
            **self.env,
        }
        argv = ["sh", str(SCRIPT), *architectures]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian on x86_64, without a kernel."""
    machine = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, text in FAKES.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    for name in REAL:
        real = shutil.which(name)
        assert real
        (tmp_path / "bin" / name).symlink_to(real)
    machine.file("etc/os-release", "NAME=x\nID=debian\n")
    return machine


def test_the_real_package_behind_the_name_is_kept_and_nothing_else(machine: Machine) -> None:
    done = machine.kernels("x86_64", "aarch64")
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(path.name for path in machine.kept.iterdir()) == ["aarch64.deb", "x86_64.deb"]
    assert (machine.kept / "aarch64.deb").read_text() == "linux-image-6.1.0-9-cloud\n"
    for debian in ("amd64", "arm64"):
        assert f"APT::Architecture={debian} " in machine.calls
        assert f"show linux-image-cloud-{debian}\n" in machine.calls


def test_apt_keeps_its_hands_off_the_system(machine: Machine) -> None:
    """Every call has lists, state and caches of its own."""
    machine.kernels("aarch64")
    assert len(machine.calls.splitlines()) == 3
    for line in machine.calls.splitlines():
        options = dict(word.split("=") for word in line.split() if "=" in word)
        for name in ("Dir::State", "Dir::State::status", "Dir::Cache"):
            assert options[name].startswith(f"{machine.kept}/.new-")
        assert " install" not in line


@pytest.mark.parametrize("name", ["aarch64.deb", "aarch64"])
def test_one_that_is_there_is_enough(machine: Machine, name: str) -> None:
    machine.kept.mkdir(parents=True)
    (machine.kept / name).touch()
    done = machine.kernels("aarch64")
    assert (done.returncode, done.stderr, machine.calls) == (0, "", "")


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ("kernel/drivers/net/virtio_net.ko", ""),
        ("kernel/drivers/net/virtio_net.ko.zst", ""),
        ("modules.builtin", "kernel/drivers/net/virtio_net.ko\n"),
    ],
)
def test_this_machines_own_is_enough(machine: Machine, driver: str, text: str) -> None:
    """For its own architecture."""
    machine.file("boot/vmlinuz-6.1")
    machine.file(f"lib/modules/6.1/{driver}", text)
    assert machine.kernels("x86_64").stderr == ""
    assert machine.calls == ""
    machine.kernels("aarch64")
    assert (machine.kept / "aarch64.deb").exists()


def test_this_machines_own_without_the_driver(machine: Machine) -> None:
    machine.file("boot/vmlinuz-6.1")
    machine.file("lib/modules/6.1/modules.builtin", "kernel/drivers/net/e1000.ko\n")
    machine.kernels("x86_64")
    assert (machine.kept / "x86_64.deb").exists()


def test_offline(machine: Machine) -> None:
    """No failure, no leftovers, and the next architecture has its turn."""
    machine.env["PRETEND_OFFLINE"] = "yes"
    done = machine.kernels("aarch64", "x86_64")
    assert done.returncode == 0
    assert "E: no network" in done.stderr
    assert "none for aarch64 (apt-get could not get it). Next: download" in done.stderr
    assert "linux-image-cloud-amd64 depends on; then coldstart images build --kernel FILE" in done.stderr
    assert list(machine.kept.iterdir()) == []


def test_other_distributions(machine: Machine) -> None:
    machine.file("etc/os-release", "ID=ubuntu\nID_LIKE=debian\n")
    done = machine.kernels("aarch64")
    assert (done.returncode, machine.calls) == (0, "")
    assert len(done.stderr.splitlines()) == 1
    assert "linux-image-cloud-arm64 depends on; then coldstart images build --kernel FILE" in done.stderr


def test_an_unknown_architecture(machine: Machine) -> None:
    done = machine.kernels("riscv64")
    assert done.returncode == 2
    assert "usage: scripts/kernels.sh" in done.stderr
