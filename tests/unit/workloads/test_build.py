"""The workload's build: nothing is done twice, nothing wrong is let through. The compiler itself: tests/live."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coldstart.errors import ImageError
from coldstart.workloads import build

ROOT = Path(build.__file__).parent.parent.parent
PROGRAMS = [f"{program.name}.{arch}" for program in build.PROGRAMS for arch in build.ARCHITECTURES]


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for the compiler, with sums to match; the list is what it was asked for."""
    asked: list[str] = []

    def stand_in(program: build.Program, arch: str, scratch: Path) -> bytes:
        asked.append(f"{program.name}.{arch}")
        return f"{program.name} for {arch}".encode()

    monkeypatch.setattr(build, "_compile", stand_in)
    monkeypatch.setattr(build, "SUMS", tmp_path / "SHA256SUMS")
    build.build(tmp_path / "first", update=True)
    asked.clear()
    return asked


def test_what_is_right_is_not_built_again(compiled: list[str], tmp_path: Path) -> None:
    first = build.build(tmp_path / "out")
    assert compiled == PROGRAMS
    assert build.build(tmp_path / "out") == first
    assert compiled == PROGRAMS
    assert [path.name for path in first] == build.names()


def test_files_and_modes(compiled: list[str], tmp_path: Path) -> None:
    """No temporary file is left."""
    build.build(tmp_path / "out")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    archives = {f"hello.{arch}.docker.tar": 0o644 for arch in build.ARCHITECTURES}
    assert modes == {**dict.fromkeys(PROGRAMS, 0o755), **archives, build.STAMP: 0o644}


@pytest.mark.parametrize("name", [*build.names(), build.STAMP])
@pytest.mark.parametrize("change", ["gone", "changed"])
def test_what_is_not_right_is_built_again(compiled: list[str], tmp_path: Path, name: str, change: str) -> None:
    build.build(tmp_path / "out")
    path = tmp_path / "out" / name
    before = path.read_bytes()
    path.unlink() if change == "gone" else path.write_bytes(b"x")
    build.build(tmp_path / "out")
    assert path.read_bytes() == before
    assert compiled == 2 * PROGRAMS


def test_changed_source_is_built_again(compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build(tmp_path / "out")
    monkeypatch.setattr(build, "COMPILER", "another")
    monkeypatch.setattr(build, "_check_compiler", lambda: None)
    build.build(tmp_path / "out")
    assert compiled == 2 * PROGRAMS


def test_other_bytes_are_refused(compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put in place, and the file is named; with `update` they become the right ones."""
    monkeypatch.setattr(build, "_compile", lambda program, arch, scratch: b"other")
    with pytest.raises(ImageError, match=r"^hello\.x86_64: built sha256 .* SHA256SUMS says .*--update"):
        build.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    build.build(tmp_path / "out", update=True)
    assert all(build.is_right(path) for path in build.build(tmp_path / "out"))


def test_no_sums_at_all(compiled: list[str], tmp_path: Path) -> None:
    build.SUMS.unlink()
    with pytest.raises(ImageError, match="SHA256SUMS says nothing"):
        build.build(tmp_path / "out")


def test_folder_that_cannot_be_written(compiled: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="file/out: Not a directory"):
        build.build(tmp_path / "file" / "out")


@pytest.mark.parametrize("found", [None, "0.1.0"])
def test_only_the_pinned_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(package: str) -> str:
        if found is None:
            raise build.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(build.metadata, "version", version)
    with pytest.raises(ImageError, match=f"pip install ziglang=={build.COMPILER}"):
        build.build(tmp_path / "out")


def test_same_pin_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pin = f"ziglang=={build.COMPILER}"
    assert pin in project["build-system"]["requires"]
    assert pin in project["project"]["optional-dependencies"]["dev"]


def test_committed_sums_name_every_file() -> None:
    assert sorted(build.expected()) == sorted(build.names())


def test_needs_nothing_installed(tmp_path: Path) -> None:
    """The wheel's hook loads it before any dependency is there: only the standard library may come with it."""
    code = (
        "import sys; before = set(sys.modules); import coldstart.workloads.build;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-S", "-c", code]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["coldstart"]
