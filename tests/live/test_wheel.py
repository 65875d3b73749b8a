"""What `pip install` of the wheel gives: the program, its images and its documents, from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from this tree, with the compiler that is installed here."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An empty environment with the wheel and what it asks for."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=60)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(pip, check=True, timeout=300)
    return venv / "bin" / "coldstart"


def test_the_wheel_has_what_a_user_needs(wheel):
    """Built images for both architectures, shipped documents, for any platform; and no compiler is asked for."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name) for name in names if name.endswith("METADATA")).decode()
    built = "coldstart/workloads/hello/built/"
    kinds = ("hello.{}", "hello.{}.docker.tar", "hello-unikernel.{}")
    assert {built + kind.format(arch) for arch in ("x86_64", "aarch64") for kind in kinds} <= names
    assert {"coldstart/shipped/inventories/local.yaml", "coldstart/shipped/playbooks/quick.yaml"} <= names
    assert "py3-none-any" in wheel.name
    assert not [line for line in metadata.splitlines() if "ziglang" in line and "extra" not in line]


@pytest.mark.parametrize("inventory", ["local", "inventories/local.yaml"])
def test_a_sweep_from_another_folder(installed, engine, tmp_path, inventory):
    """With the shipped inventory and playbook, and with the images the wheel brought."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [str(installed), "sweep", inventory, "--boots", "2", "--format", "json"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert [cell["failed"] for cell in json.loads(result.stdout)["cells"]] == [0, 0, 0, 0]
