"""Images in files: the same image is the same whatever it travels in, and what is not right is refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_fixtures import (
    LAYER,
    PACKED,
    SECOND,
    ZSTD,
    Layout,
    as_json,
    config,
    contents,
    identity,
    saved,
    sha256,
    tar_of,
)

from coldstart import archive, layers, sources
from coldstart.archive import ContainerImage, File
from coldstart.errors import ImageError
from coldstart.source import Source

IMAGE = ContainerImage(
    repository="example.test/app",
    architecture="aarch64",
    layers=((File("etc/motd", b"hello\n"),), (File("app", b"\x7fELF" + bytes(2000), 0o755),)),
    command=("/app", "--now"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files that are compressed as a whole are unpacked."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "coldstart" / "images"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Source]:
    def write_and_read(data: bytes, arch: str = "x86_64") -> Source:
        (tmp_path / "app.tar").write_bytes(data)
        return sources.read(tmp_path / "app.tar", arch)

    return write_and_read


anyone = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
files = st.builds(File, st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=3000))
layer = st.lists(files, max_size=4, unique_by=lambda file: file.path).map(tuple)
images = st.builds(
    ContainerImage,
    repository=st.just("example.test/app"),
    architecture=st.sampled_from(["x86_64", "aarch64"]),
    layers=st.lists(layer, max_size=4).map(tuple),
    command=st.just(("/app",)),
    env=st.dictionaries(st.sampled_from("ABC"), st.text(max_size=5)),
)


def unpacked(data: bytes, path: Path) -> Path:
    for name, content in contents(data).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@anyone
@given(image=images)
def test_every_kind_is_the_same(tmp_path_factory: pytest.TempPathFactory, image: ContainerImage) -> None:
    """Whatever we can pack is read back alike from a tar, a layout, a folder, and compressed as a whole."""
    folder, data, arch = tmp_path_factory.mktemp("kinds"), archive.pack(image), image.architecture
    halves = contents(data)
    docker = {name: content for name, content in halves.items() if name not in ("oci-layout", "index.json")}
    oci = {name: content for name, content in halves.items() if name != "manifest.json"}
    kinds = {"both": data, "docker": tar_of(docker), "oci": tar_of(oci)}  # type: ignore[arg-type]
    kinds |= {"gz": gzip.compress(data), "bz2": bz2.compress(kinds["oci"]), "xz": lzma.compress(kinds["docker"])}
    for name, content in kinds.items():
        (folder / name).write_bytes(content)
    found = {name: sources.read(folder / name, arch) for name in kinds}
    found["folder"] = sources.read(unpacked(kinds["oci"], folder / "oci-dir"), arch)
    assert {str(identity(source)) for source in found.values()} == {str(identity(found["both"]))}
    assert {source.tags for source in found.values()} == {(archive.tag(image),)}
    assert found["both"].unpacked_bytes == tuple(sum(len(file.data) for file in each) for each in image.layers)
    assert [b"".join(blob.read()) for blob in found["docker"].layers] == [archive.tar(each) for each in image.layers]


DAMAGEABLE = {
    "ours": (archive.pack(IMAGE), "aarch64"),
    "docker's": (
        saved(
            {"a/layer.tar": LAYER, sha256(PACKED).replace("sha256:", "blobs/sha256/"): PACKED, "c": "a/layer.tar"},
            own=config(LAYER, SECOND, LAYER),
        ),
        "x86_64",
    ),
    "oci": (
        (lambda new: new.index(new.image("arm64"), new.image()).tar())(Layout()),
        "x86_64",
    ),
    "gzip": (gzip.compress(saved({"l": LAYER}, own=config(LAYER)), mtime=0), "x86_64"),
}


@pytest.mark.parametrize("kind", DAMAGEABLE)
@settings(anyone, max_examples=150)
@given(data=st.data())
def test_cut_short_anywhere(read: Callable[..., Source], kind: str, data: st.DataObject) -> None:
    """Refused, or read as if it were whole (what was lost is padding); never another exception."""
    whole, arch = DAMAGEABLE[kind]
    length = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = read(whole[:length], arch)
    except ImageError:
        return
    assert identity(found) == identity(read(whole, arch))


@pytest.mark.parametrize("kind", DAMAGEABLE)
@settings(anyone, max_examples=300)
@given(data=st.data())
def test_a_byte_is_another(read: Callable[..., Source], kind: str, data: st.DataObject) -> None:
    """Refused, or it made no difference: never is another digest taken for the right one."""
    whole, arch = DAMAGEABLE[kind]
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(damaged), arch)
    except ImageError:
        return
    assert identity(found) == identity(read(whole, arch))


@pytest.mark.parametrize("kind", DAMAGEABLE)
@settings(anyone, max_examples=100)
@given(data=st.data())
def test_overwritten_anywhere(read: Callable[..., Source], kind: str, data: st.DataObject) -> None:
    """Whatever the bytes, it is an answer or an ImageError."""
    whole, arch = DAMAGEABLE[kind]
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(damaged) - 1))
        new = data.draw(st.binary(min_size=1, max_size=12))
        damaged[begin : begin + len(new)] = new
    with contextlib.suppress(ImageError):
        read(bytes(damaged), arch)


# --- which kind ---


def test_a_layout_goes_before_docker(read: Callable[..., Source]) -> None:
    """Where one tar is both, the manifest is the image's own; the names are Docker's."""
    new = Layout()
    entry = new.image()
    new.index({**entry, "annotations": {"org.opencontainers.image.ref.name": "1"}})
    own = next(name for name, data in new.files.items() if data == config(LAYER, architecture="amd64"))
    listed = [{"Config": own, "RepoTags": ["app:1"], "Layers": []}]
    new.files["manifest.json"] = as_json(listed)
    source = read(new.tar())
    assert (source.manifest.digest, source.tags) == (entry["digest"], ("app:1",))
    new.files["manifest.json"] = as_json([{**listed[0], "RepoTags": None}])
    assert read(new.tar()).tags == ("1",)


def test_a_damaged_half_is_not_made_up_for_by_the_other(read: Callable[..., Source]) -> None:
    files: dict[str, Any] = contents(archive.pack(IMAGE))
    for name in ("index.json", "oci-layout", "manifest.json"):
        with pytest.raises(ImageError, match="is damaged: no JSON"):
            read(tar_of({**files, name: b"{"}), "aarch64")


def test_halves_of_different_images(read: Callable[..., Source]) -> None:
    files: dict[str, Any] = contents(archive.pack(IMAGE))
    other = as_json([{"Config": "blobs/sha256/" + "0" * 64, "RepoTags": ["app:1"], "Layers": []}])
    with pytest.raises(ImageError, match=r"manifest\.json and its index\.json are of different images"):
        read(tar_of({**files, "manifest.json": other}), "aarch64")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a tar archive"),
        (b"#!/bin/sh\n" * 1000, "not a tar archive"),
        (tar_of({"x": b"1"}), r"no manifest\.json"),
        (tar_of({"oci-layout": as_json({"imageLayoutVersion": "1.0.0"})}), r"index\.json is missing"),
        (gzip.compress(archive.pack(IMAGE))[:-20], "damaged"),
        (gzip.compress(archive.pack(IMAGE)) + b"more", "damaged"),
        (ZSTD, "zstd -d"),
    ],
)
def test_refused(read: Callable[..., Source], cache: Path, data: bytes, what: str) -> None:
    """The message names the user's file, says what, and what to do next; nothing is left of it."""
    with pytest.raises(ImageError, match=what) as error:
        read(data)
    assert "app.tar: " in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(
    ("name", "what"),
    [("gone.tar", "No such file"), (".", "a folder without an OCI layout"), ("pipe", "not a file")],
)
def test_no_file_of_an_image(tmp_path: Path, name: str, what: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=what):
        sources.read(tmp_path / name, "x86_64")


# --- once ---


def test_unpacked_once(read: Callable[..., Source], cache: Path) -> None:
    """By its content: a copy under another name is the same file."""
    data = gzip.compress(saved({"l": LAYER}, own=config(LAYER)))
    (path,) = {blob.path for blob in read(data).layers}
    assert path is not None
    inode = path.stat().st_ino
    (path.parent.parent / "copy").write_bytes(data)
    (again,) = {blob.path for blob in sources.read(path.parent.parent / "copy", "x86_64").layers}
    assert (again, path.stat().st_ino, list(cache.iterdir())) == (path, inode, [path])
    assert cache.stat().st_mode & 0o777 == 0o700


def test_too_much_to_unpack(read: Callable[..., Source], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", 5000)
    with pytest.raises(ImageError, match="it unpacks to more than"):
        read(gzip.compress(bytes(1 << 20)))
    assert not list(cache.iterdir())


def test_fifty_nodes_hash_once(tmp_path: Path) -> None:
    """At once, each in a thread of its own."""
    path = tmp_path / "app.tar"
    path.write_bytes(archive.pack(IMAGE))
    before = layers._measured.cache_info().misses
    found: list[Source] = []
    threads = [threading.Thread(target=lambda: found.append(sources.read(path, "aarch64"))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 50
    assert len({str(identity(source)) for source in found}) == 1
    assert layers._measured.cache_info().misses == before + 2


def test_a_file_that_is_another_is_read_again(tmp_path: Path) -> None:
    """Of the same size, under the same name."""
    path = tmp_path / "app.tar"
    path.write_bytes(archive.pack(IMAGE))
    sources.read(path, "aarch64")
    data = bytearray(path.read_bytes())
    data[data.index(b"hello\n")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        sources.read(path, "aarch64")
