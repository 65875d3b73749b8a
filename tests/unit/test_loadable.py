"""An archive that any engine takes: it holds the image under its own digests, whichever half of it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldstart import archive, loadable, sources
from coldstart.archive import ContainerImage, File
from coldstart.source import Source

NAME = "coldstart.local/app:111"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "app.tar"
    twice = (File("same", b"x" * 5000),)
    image = ContainerImage("x.example/app", "x86_64", (twice, twice, (File("hello", b"y", 0o755),)), ("/hello",))
    path.write_bytes(archive.pack(image))
    return sources.read(path, "x86_64")


def written(source: Source, path: Path, *, without: bytes = b"") -> Path:
    data = b"".join(loadable.archive(source, NAME).read())
    path.write_bytes(data.replace(without, b"x" * len(without)) if without else data)
    return path


def test_engines_that_keep_manifests_find_the_images_own(source: Source, tmp_path: Path) -> None:
    """As containerd's store does: it is the manifest that the registry would have served."""
    found = sources.read(written(source, tmp_path / "out.tar"), "x86_64")
    assert (found.manifest, found.tags) == (source.manifest, (NAME,))
    assert [layer.digest for layer in found.layers] == [layer.digest for layer in source.layers]


def test_engines_that_know_manifest_json_alone(source: Source, tmp_path: Path) -> None:
    """As old ones do: the same config and layers."""
    path = written(source, tmp_path / "out.tar", without=b"oci-layout")
    data = path.read_bytes().replace(b"index.json", b"other.json")
    path.write_bytes(mended(data))
    found = sources.read(path, "x86_64")
    assert (found.config.digest, found.tags) == (source.config.digest, (NAME,))
    assert found.diff_ids == source.diff_ids


def mended(data: bytes) -> bytes:
    """The tar, the sums of its first two headers right again."""
    blocks = bytearray(data)
    for at in (0, 1024):
        blocks[at + 148 : at + 156] = b" " * 8
        blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    return bytes(blocks)
