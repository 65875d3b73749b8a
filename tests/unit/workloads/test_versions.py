"""Versions of the workload: what they share, what they do not, and that they are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldstart import sources
from coldstart.errors import ImageError
from coldstart.workloads import build, versions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(versions, "BASE_BYTES", 100_000)
    return tmp_path / "cache/coldstart/versions"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "hello").write_bytes(b"\x7fELF program")
    return tmp_path / "hello"


@pytest.mark.parametrize("arch", build.ARCHITECTURES)
def test_two_versions_differ_in_one_small_layer(program: Path, arch: str) -> None:
    """Base, server, version: so the large one stays, and what is on top is sent."""
    first, second = (
        sources.read(versions.find_or_make(name, arch, program), arch) for name in ("hello-app", "hello-app-2")
    )
    assert [a.digest == b.digest for a, b in zip(first.layers, second.layers, strict=True)] == [True, True, False]
    assert first.unpacked_bytes == (*second.unpacked_bytes[:2], 2 + versions.VERSION_BYTES)
    assert first.unpacked_bytes[:2] == (100_000, len(program.read_bytes()))
    assert first.tags != second.tags
    assert first.tags[0].startswith("coldstart.local/hello-app:")


@pytest.mark.parametrize("name", ["hello-2", "hello-unikernel-2"])
def test_same_program_with_other_bytes(program: Path, name: str) -> None:
    path = versions.find_or_make(name, "x86_64", program)
    data = path.read_bytes()
    assert data.startswith(program.read_bytes())
    assert len(data) == len(program.read_bytes()) + 64
    assert path.stat().st_mode & 0o777 == 0o755


def test_same_bytes_everywhere(program: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = versions.find_or_make("hello-app", "x86_64", program).read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "elsewhere"))
    assert versions.find_or_make("hello-app", "x86_64", program).read_bytes() == first


def test_the_base_cannot_be_compressed() -> None:
    import zlib

    base = versions._noise("hello-app base", 1 << 16)
    assert len(zlib.compress(base)) > len(base)


@pytest.mark.parametrize("name", versions.NAMES)
def test_made_once(program: Path, cache: Path, name: str) -> None:
    """Until it is damaged, or its program is another one."""
    assert versions.find(name, "x86_64", program) is None
    path = versions.find_or_make(name, "x86_64", program)
    made, inode = path.read_bytes(), path.stat().st_ino
    assert versions.find(name, "x86_64", program) == path
    assert versions.find_or_make(name, "x86_64", program).stat().st_ino == inode
    path.write_bytes(made[:-1])
    assert versions.find(name, "x86_64", program) is None
    assert versions.find_or_make(name, "x86_64", program).read_bytes() == made
    program.write_bytes(b"another")
    assert versions.find_or_make(name, "x86_64", program).read_bytes() != made
    assert len(list(cache.iterdir())) == 2


def test_no_room(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ImageError, match="Not a directory") as error:
        versions.find_or_make("hello-2", "x86_64", program)
    assert "XDG_CACHE_HOME" in error.value.hint
