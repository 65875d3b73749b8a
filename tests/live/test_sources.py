"""Images as real tools write them: Docker's own `save`, an engine by its SDK, podman and skopeo where they are."""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coldstart import archive, images, ownengine, sources
from coldstart.archive import ContainerImage, File
from coldstart.source import Source, digest

pytestmark = pytest.mark.live

ARCH = platform.machine()
NAME = "coldstart.test/sources:1"


def image(content: bytes) -> ContainerImage:
    base = File("base", b"".join(index.to_bytes(4, "big") for index in range(100_000)))
    return ContainerImage("coldstart.test/built", ARCH, ((base,), (File("top", content),)), ("/top",))


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load(path: Path, content: bytes) -> str:
    """Into the engine, tagged; its id."""
    path.write_bytes(archive.pack(image(content)))
    run("docker", "load", "--quiet", "--input", str(path))
    run("docker", "tag", archive.tag(image(content)), NAME)
    return run("docker", "image", "inspect", "--format", "{{.Id}}", NAME)


@pytest.fixture
def docker(engine: str, node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An engine with the image; its id."""
    if shutil.which("docker") is None:
        pytest.skip("needs Docker's command line")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    yield load(tmp_path / "first.tar", b"first")
    tags = [NAME, *(archive.tag(image(content)) for content in (b"first", b"second"))]
    subprocess.run(["docker", "image", "rm", "--force", *tags], capture_output=True, check=False)


def unpacked(source: Source) -> list[bytes]:
    """Every layer, read as a registry would; its digest is what it is said to be."""
    stored = [b"".join(blob.read()) for blob in source.layers]
    assert [digest(data) for data in stored] == [blob.digest for blob in source.layers]
    return [gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data for data in stored]


def is_it(source: Source, content: bytes = b"first") -> bool:
    made = image(content)
    assert unpacked(source) == [archive.tar(files) for files in made.layers]
    assert source.unpacked_bytes == tuple(sum(len(file.data) for file in files) for files in made.layers)
    assert source.architecture == ARCH
    return json.loads(source.config.data)["config"]["Cmd"] == ["/top"]  # type: ignore[no-any-return]


def test_docker_save(docker: str, tmp_path: Path) -> None:
    """As it is, and compressed; by the tag it has its name."""
    path = tmp_path / "saved.tar"
    run("docker", "save", "--output", str(path), NAME)
    source = sources.read(path, ARCH)
    assert is_it(source)
    assert any(tag.endswith("coldstart.test/sources:1") for tag in source.tags)
    (tmp_path / "saved.tar.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    packed = sources.read(tmp_path / "saved.tar.gz", ARCH)
    assert [blob.digest for blob in packed.blobs()] == [blob.digest for blob in source.blobs()]
    assert packed.tags == source.tags


def test_of_this_machines_engine(docker: str, tmp_path: Path) -> None:
    """By its tag, saved once; what the id says counts."""
    source = ownengine.export(NAME, ARCH)
    assert source is not None
    assert is_it(source)
    assert source.tags == (NAME,)
    (path,) = (tmp_path / "cache/coldstart/images").iterdir()
    assert path.name == f"saved-{docker.replace(':', '-')}.tar"
    inode = path.stat().st_ino
    assert ownengine.export(NAME, ARCH) == images.container(NAME, ARCH, tmp_path) == source
    assert path.stat().st_ino == inode


def test_what_the_engine_runs_is_what_is_found(docker: str) -> None:
    """In Docker's classic store the config's digest is the image's id; in containerd's, the manifest's."""
    source = ownengine.export(NAME, ARCH)
    assert source is not None
    assert docker in (source.config.digest, source.manifest.digest)


def test_a_tag_that_moved(docker: str, tmp_path: Path) -> None:
    """It is another image; the old one stays what it was."""
    before = ownengine.export(NAME, ARCH)
    assert load(tmp_path / "second.tar", b"second") != docker
    after = ownengine.export(NAME, ARCH)
    assert before is not None
    assert after is not None
    assert is_it(after, b"second")
    assert is_it(before)
    assert before.layers[0].digest == after.layers[0].digest
    assert before.layers[1].digest != after.layers[1].digest


def test_not_there(docker: str) -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    assert ownengine.export("coldstart.test/gone:1", ARCH) is None
    assert ownengine.export(NAME, other) is None


def test_a_saved_file_that_is_damaged_is_saved_anew(docker: str, tmp_path: Path) -> None:
    """It is refused once, and not kept."""
    assert ownengine.export(NAME, ARCH) is not None
    (path,) = (tmp_path / "cache/coldstart/images").iterdir()
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(images.ImageError):
        ownengine.export(NAME, ARCH)
    source = ownengine.export(NAME, ARCH)
    assert source is not None
    assert is_it(source)


@pytest.mark.parametrize("kind", ["oci-archive", "oci-dir", "docker-archive"])
def test_podman_save(tmp_path: Path, kind: str) -> None:
    """What another engine's own command writes."""
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    (tmp_path / "first.tar").write_bytes(archive.pack(image(b"first")))
    run("podman", "load", "--quiet", "--input", str(tmp_path / "first.tar"))
    try:
        run("podman", "save", "--format", kind, "--output", str(tmp_path / "out"), archive.tag(image(b"first")))
    finally:
        run("podman", "image", "rm", "--force", archive.tag(image(b"first")))
    assert is_it(sources.read(tmp_path / "out", ARCH))
