"""Image archives: what is written is exact, what is read is right or refused by name, and nothing else happens."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldstart import archive
from coldstart.archive import ArchiveInfo, ContainerImage, File
from coldstart.errors import ImageError

IMAGE = ContainerImage(
    repository="example.test/app",
    architecture="aarch64",
    files=(File("etc/motd", b"hello\n"), File("app", b"\x7fELF" + bytes(2000), 0o755)),
    command=("/app", "--now"),
    ports=(8080,),
    user="65534",
    env={"B": "2", "A": "1"},
    labels={"who": "test"},
)


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def tar_of(entries: dict[str, bytes | str]) -> bytes:
    """bytes: a file; str: a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in entries.items():
            member = tarfile.TarInfo(name)
            if isinstance(value, str):
                member.type, member.linkname = tarfile.SYMTYPE, value
                tar.addfile(member)
            else:
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
    return buffer.getvalue()


CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
LAYER = tar_of({"bin/x": bytes(1000), "bin/y": "x"})


def saved(layers: dict[str, bytes | str], *, entries: Any = None, **more: bytes | str) -> bytes:
    """What `docker save` writes, by hand."""
    entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": list(layers)}
    manifest = json.dumps([entry] if entries is None else entries).encode()
    return tar_of({"c.json": CONFIG, **layers, "manifest.json": manifest, **more})


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[[bytes], ArchiveInfo]:
    def write_and_inspect(data: bytes) -> ArchiveInfo:
        (tmp_path / "app.tar").write_bytes(data)
        return archive.inspect(tmp_path / "app.tar")

    return write_and_inspect


# --- writing ---


def test_same_image_gives_same_bytes() -> None:
    shuffled = ContainerImage(**{**vars(IMAGE), "files": IMAGE.files[::-1], "env": {"A": "1", "B": "2"}})
    assert archive.pack(IMAGE) == archive.pack(shuffled)


def test_tar_says_nothing_of_the_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.tar(IMAGE.files))) as tar:
        members = tar.getmembers()
    assert [(m.name, m.mode, m.size) for m in members] == [("app", 0o755, 2004), ("etc/motd", 0o644, 6)]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_manifest_of_docker() -> None:
    files = contents(archive.pack(IMAGE))
    (entry,) = json.loads(files["manifest.json"])
    config = json.loads(files[entry["Config"]])
    (layer,) = entry["Layers"]
    assert contents(files[layer])["etc/motd"] == b"hello\n"
    assert entry["RepoTags"] == [f"example.test/app:{layer.rpartition('/')[2][:12]}"] == [archive.tag(IMAGE)]
    assert (config["architecture"], config["os"], config["created"]) == ("arm64", "linux", "1970-01-01T00:00:00Z")
    assert config["rootfs"]["diff_ids"] == ["sha256:" + layer.rpartition("/")[2]]
    assert config["config"] == {
        "Cmd": ["/app", "--now"],
        "Env": ["A=1", "B=2"],
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"who": "test"},
        "User": "65534",
    }


def test_oci_layout() -> None:
    """Every descriptor, from the index on, finds a blob of its size and digest."""
    files = contents(archive.pack(IMAGE))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def follow(descriptor: dict[str, Any]) -> bytes:
        data = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert (len(data), "sha256:" + hashlib.sha256(data).hexdigest()) == (descriptor["size"], descriptor["digest"])
        return data

    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(follow(entry))
    assert json.loads(follow(manifest["config"]))["architecture"] == entry["platform"]["architecture"] == "arm64"
    assert [contents(follow(layer)).keys() for layer in manifest["layers"]] == [{"app", "etc/motd"}]
    assert entry["annotations"]["io.containerd.image.name"] == archive.tag(IMAGE)


# --- reading ---


def test_reads_what_it_writes(inspect: Callable[[bytes], ArchiveInfo]) -> None:
    data = archive.pack(IMAGE)
    (entry,) = json.loads(contents(data)["manifest.json"])
    digest = entry["Config"].replace("blobs/sha256/", "sha256:")
    assert inspect(data) == ArchiveInfo("aarch64", (archive.tag(IMAGE),), digest, (2010,))


def test_layers_of_every_kind(inspect: Callable[[bytes], ArchiveInfo]) -> None:
    """Plain, gzip, a link to another one as `docker save` writes it, and zstd, which cannot be read."""
    layers: dict[str, bytes | str] = {
        "a/layer.tar": LAYER,
        "b/layer.tar": gzip.compress(LAYER),
        "c/layer.tar": "../a/layer.tar",
        "d/layer.tar": b"\x28\xb5\x2f\xfd rest",
    }
    info = inspect(saved(layers))
    assert info.layer_bytes == (1000, 1000, 1000, None)
    assert (info.architecture, info.tags) == ("x86_64", ("app:1",))
    assert info.config_digest == "sha256:" + hashlib.sha256(CONFIG).hexdigest()


def test_compressed_as_a_whole(inspect: Callable[[bytes], ArchiveInfo]) -> None:
    assert inspect(gzip.compress(saved({"l": LAYER}))).layer_bytes == (1000,)


def test_no_tags(inspect: Callable[[bytes], ArchiveInfo]) -> None:
    assert inspect(saved({}, entries=[{"Config": "c.json", "RepoTags": None, "Layers": None}])).tags == ()


ENTRY = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l"]}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a tar archive"),
        (b"#!/bin/sh\n" * 1000, "not a tar archive"),
        (tar_of({"x": b"1"}), "no manifest.json"),
        (tar_of({"oci-layout": b"{}"}), "skopeo copy"),
        (saved({"l": LAYER}, entries=[ENTRY, ENTRY]), "holds 2 images"),
        (saved({"l": LAYER}, entries=[]), "lists no image"),
        (saved({"l": LAYER}, entries={"Config": "c.json"}), "lists no image"),
        (saved({"l": LAYER}, entries=[{**ENTRY, "Config": 1}]), "no Config"),
        (saved({"l": LAYER}, entries=[{**ENTRY, "Layers": [1]}]), "Layers"),
        (saved({"l": LAYER}, entries=[{**ENTRY, "Config": "gone.json"}]), "gone.json is missing"),
        (saved({"l": LAYER}, entries=[{**ENTRY, "Config": "../c.json"}]), "'../c.json' climbs"),
        (saved({"l": LAYER}, **{"../evil": b""}), "'../evil' climbs"),
        (saved({"l": LAYER}, **{"/evil": b""}), "'/evil' climbs"),
        (saved({"l": tar_of({"x/../../evil": b""})}), "'x/../../evil' climbs"),
        (saved({"l": "../../etc/passwd"}), "'../../etc/passwd' climbs"),
        (saved({"l": "l"}), "link without an end"),
        (saved({"l": b"no tar"}), "damaged"),
        (saved({"l": gzip.compress(LAYER)[:-20]}), "damaged"),
        (tar_of({"manifest.json": b"{"}), "damaged"),
        (tar_of({"manifest.json": json.dumps([ENTRY]).encode(), "c.json": b"[]"}), "not a JSON object"),
        (tar_of({"manifest.json": json.dumps([ENTRY]).encode(), "c.json": b"{}"}), "no architecture"),
    ],
)
def test_refused(inspect: Callable[[bytes], ArchiveInfo], data: bytes, what: str) -> None:
    """The message names the file, says what, and what to do next."""
    with pytest.raises(ImageError) as error:
        inspect(data)
    assert "app.tar: " in str(error.value)
    assert what in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gone.tar", "."])
def test_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"No such file|Is a directory"):
        archive.inspect(tmp_path / name)


DAMAGEABLE = {
    "ours": archive.pack(IMAGE),
    "docker's": saved({"a/layer.tar": LAYER, "b/layer.tar": gzip.compress(LAYER), "c/layer.tar": "../a/layer.tar"}),
    "gzip": gzip.compress(saved({"l": LAYER}), mtime=0),
}
anyone = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", DAMAGEABLE)
@anyone
@given(data=st.data())
def test_cut_short_anywhere(inspect: Callable[[bytes], ArchiveInfo], kind: str, data: st.DataObject) -> None:
    """Refused, or read as if it were whole (what was lost is padding); never another exception."""
    whole = DAMAGEABLE[kind]
    length = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = inspect(whole[:length])
    except ImageError:
        return
    assert found == inspect(whole)


@pytest.mark.parametrize("kind", DAMAGEABLE)
@anyone
@given(data=st.data())
def test_overwritten_anywhere(inspect: Callable[[bytes], ArchiveInfo], kind: str, data: st.DataObject) -> None:
    """Only an engine's digests can tell all damage; whatever the bytes, it is an answer or an ImageError."""
    damaged = bytearray(DAMAGEABLE[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(damaged) - 1))
        new = data.draw(st.binary(min_size=1, max_size=12))
        damaged[begin : begin + len(new)] = new
    try:
        inspect(bytes(damaged))
    except ImageError:
        return
