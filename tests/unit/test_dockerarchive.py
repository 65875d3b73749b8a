"""What `docker save` and its like write: layers of every kind, and whatever can be wrong with one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_fixtures import LAYER, PACKED, SECOND, ZSTD, as_json, config, saved, sha256, tar_of

from coldstart import assembly, layers, outer, sources
from coldstart.errors import ImageError
from coldstart.source import Source, digest


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Source]:
    def write_and_read(data: bytes, arch: str = "x86_64") -> Source:
        (tmp_path / "app.tar").write_bytes(data)
        return sources.read(tmp_path / "app.tar", arch)

    return write_and_read


def test_layers_of_every_kind(read: Callable[..., Source]) -> None:
    """Plain, gzip, links to another one as engines write them, and zstd, which is taken as it is."""
    files: dict[str, bytes | str] = {
        "a/layer.tar": LAYER,
        "b/layer.tar": PACKED,
        "c/layer.tar": "../a/layer.tar",
        "d/layer.tar": "=b/layer.tar",
        "e/layer.tar": ZSTD,
    }
    own = config(LAYER, SECOND, LAYER, SECOND, b"whatever it unpacks to")
    source = read(saved(files, own=own))
    types = ["", "+gzip", "", "+gzip", "+zstd"]
    assert [blob.media_type.removeprefix("application/vnd.oci.image.layer.v1.tar") for blob in source.layers] == types
    assert [b"".join(blob.read()) for blob in source.layers] == [LAYER, PACKED, LAYER, PACKED, ZSTD]
    assert all(digest(b"".join(blob.read())) == blob.digest for blob in source.layers)
    assert source.unpacked_bytes == (1000, 6, 1000, 6, None)
    assert source.diff_ids == tuple(json.loads(own)["rootfs"]["diff_ids"])
    assert (source.architecture, source.tags, source.config.digest) == ("x86_64", ("app:1",), sha256(own))
    manifest = json.loads(source.manifest.data)
    assert [layer["digest"] for layer in manifest["layers"]] == [blob.digest for blob in source.layers]
    assert manifest["config"]["digest"] == sha256(own)


def test_nothing_is_copied(read: Callable[..., Source], tmp_path: Path) -> None:
    """Layers are read from where they lie."""
    source = read(saved({"l": LAYER}, own=config(LAYER)))
    assert {blob.path for blob in source.layers} == {tmp_path / "app.tar"}
    assert [path.name for path in tmp_path.iterdir()] == ["app.tar"]


@pytest.mark.parametrize("none", [None, []])
def test_no_tags_and_no_layers(read: Callable[..., Source], none: Any) -> None:
    source = read(saved({}, own=config(), entries=[{"Config": NAME_EMPTY, "RepoTags": none, "Layers": none}]))
    assert (source.tags, source.layers) == ((), ())


def test_a_config_whose_name_says_nothing(read: Callable[..., Source]) -> None:
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["l"]}
    files: dict[str, bytes | str] = {"config.json": OWN, "l": LAYER, "manifest.json": as_json([entry])}
    assert read(tar_of(files)).config.data == OWN


def test_compressed_otherwise_is_the_same_image(read: Callable[..., Source]) -> None:
    """Nothing says what a layer hashes to as it is stored: what it unpacks to is what counts."""
    first, second = (read(saved({"l": gzip.compress(LAYER, mtime=at)}, own=OWN)) for at in (0, 1))
    assert first.layers[0].digest != second.layers[0].digest
    assert (first.config, first.diff_ids) == (second.config, second.diff_ids)


def test_names_of_layers_from_the_root(read: Callable[..., Source]) -> None:
    """As some builders write them."""
    layer = tar_of({"/bin/x": b"1", "./bin/y": b"2"})
    assert read(saved({"./l": layer}, own=config(layer))).unpacked_bytes == (2,)


OWN = config(LAYER)
NAME, NAME_EMPTY = (sha256(each).removeprefix("sha256:") + ".json" for each in (OWN, config()))
ENTRY: dict[str, Any] = {"Config": NAME, "RepoTags": ["app:1"], "Layers": ["l"]}
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def one(own: bytes = OWN, layer: bytes | str = LAYER, **more: bytes | str) -> bytes:
    return saved({"l": layer}, own=own, **more)


def listing(entries: Any, **more: bytes | str) -> bytes:
    return saved({"l": LAYER}, own=OWN, entries=entries, **more)


def header(size: int, kind: bytes = tarfile.REGTYPE, name: str = "l") -> bytes:
    """Of a member with nothing behind it."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (listing([ENTRY, ENTRY]), "holds 2 images"),
        (listing([]), "lists no image"),
        (listing({"Config": NAME}), "lists no image"),
        (listing([1]), "lists no image"),
        (listing([{**ENTRY, "Config": 1}]), "no Config"),
        (listing([{**ENTRY, "Layers": [1]}]), "Layers"),
        (listing([{**ENTRY, "RepoTags": ["two\nlines"]}]), "RepoTags"),
        (listing([{**ENTRY, "Config": "gone.json"}]), "gone.json is missing"),
        (listing([{**ENTRY, "Config": "../c.json"}]), "'../c.json' climbs"),
        (listing([{**ENTRY, "Layers": ["gone"]}]), "gone is missing"),
        (listing([{**ENTRY, "Layers": ["/etc/passwd"]}]), "'/etc/passwd' climbs"),
        (listing([{**ENTRY, "Layers": []}]), "it has 0 layers, but its config names 1"),
        (listing([{**ENTRY, "Layers": ["l", "l"]}]), "it has 2 layers, but its config names 1"),
        (listing([{**ENTRY, "LayerSources": {"x": {"mediaType": FOREIGN}}}]), "may not be passed on"),
        (one(**{"../evil": b""}), "'../evil' climbs"),
        (one(**{"/evil": b""}), "'/evil' climbs"),
        (one(layer="../../etc/passwd"), "'../../etc/passwd' climbs"),
        (one(layer="/etc/passwd"), "'/etc/passwd' climbs"),
        (one(layer="=../x"), "'../x' climbs"),
        (one(layer="l"), "link without an end"),
        (one(layer="gone"), "l is missing"),
        (one(layer=b"no tar"), "layer l is damaged"),
        (one(layer=gzip.compress(LAYER)[:-20]), "layer l is damaged"),
        (one(layer=gzip.compress(LAYER) + b"more"), "layer l is damaged"),
        (one(layer=SECOND), "layer l is damaged: unpacked it is"),
        (one(layer=PACKED), "layer l is damaged: unpacked it is"),
        (one(layer=tar_of({"x/../../evil": b""})), "'x/../../evil' climbs"),
        (one(layer=header(1 << 40, tarfile.XHDTYPE) + bytes(4096)), "a header of"),
        (one(layer=header(1 << 40)), "damaged"),
        (one(b"{"), "the image's config is damaged: no JSON"),
        (one(b"[]"), "not a JSON object"),
        (one(b"[" * 100_000), "no JSON"),
        (one(b"\xff\xfe\xfd"), "no JSON"),
        (one(b"{}"), "no architecture"),
        (one(config(LAYER, os="windows")), "an image for windows"),
        (one(config(LAYER, os="")), "no os"),
        (one(config(LAYER, rootfs=None)), "no rootfs"),
        (one(config(LAYER, rootfs={"type": "layers", "diff_ids": ["sha512:0"]})), "something else than sha256"),
        (one(config(LAYER, rootfs={"type": "layers", "diff_ids": [1]})), "diff_ids"),
        (one(config(LAYER, architecture="arm64")), "an image for aarch64, but the node is x86_64"),
        (one(config(LAYER, architecture="riscv64")), "an image for riscv64, but the node is x86_64"),
        (tar_of({"manifest.json": b"{"}), "manifest.json is damaged"),
        (tar_of({"manifest.json": b" " * (outer.MAX_JSON_BYTES + 1)}), "no description of an image is so long"),
        (tar_of({"manifest.json": as_json([ENTRY]), NAME: config()}), "its config is damaged"),
        (one()[:-10240], "cut short"),
        (one().rstrip(b"\0") + bytes(-len(one().rstrip(b"\0")) % 512), "breaks off"),
        (one().replace(b"manifest.json", b"manifast.json"), "breaks off"),
        (header(1 << 62, tarfile.XHDTYPE) + bytes(1024), "a header of"),
        (header(1 << 20, name="manifest.json") + bytes(1024), "cut short"),
    ],
)
def test_refused(read: Callable[..., Source], data: bytes, what: str) -> None:
    """The message names the file, says what, and what to do next."""
    with pytest.raises(ImageError) as error:
        read(data)
    assert "app.tar: " in str(error.value)
    assert what in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_too_many_layers(read: Callable[..., Source]) -> None:
    count = assembly.MAX_LAYERS + 1
    own = config(*[LAYER] * count)
    entry = {**ENTRY, "Config": sha256(own).removeprefix("sha256:") + ".json", "Layers": ["l"] * count}
    with pytest.raises(ImageError, match="128 layers; engines take 127"):
        read(saved({"l": LAYER}, own=own, entries=[entry]))


def test_too_many_files(read: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer, "MAX_FILES", 2)
    with pytest.raises(ImageError, match="more than 2 files"):
        read(one())


def test_a_layer_that_unpacks_to_too_much(read: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_UNPACKED_BYTES", 1 << 16)
    layer = tar_of({"zeros": bytes(1 << 20)})
    with pytest.raises(ImageError, match="damaged"):
        read(one(config(layer), gzip.compress(layer)))


def test_a_sparse_file_is_not_a_layer(read: Callable[..., Source]) -> None:
    """Its bytes do not lie in one piece."""
    member = tarfile.TarInfo("l")
    member.size = len(LAYER)
    plain = member.tobuf(tarfile.USTAR_FORMAT)
    member.type = tarfile.GNUTYPE_SPARSE
    data = one()
    assert plain in data
    with pytest.raises(ImageError, match="l is missing"):
        read(data.replace(plain, member.tobuf(tarfile.USTAR_FORMAT)))


def test_damage_is_remembered(read: Callable[..., Source], tmp_path: Path) -> None:
    """A damaged layer of some GB is not read fifty times either."""
    with pytest.raises(ImageError):
        read(one(layer=gzip.compress(LAYER)[:-20]))
    before = layers._measured.cache_info().misses
    with pytest.raises(ImageError, match="damaged"):
        sources.read(tmp_path / "app.tar", "x86_64")
    assert layers._measured.cache_info().misses == before


def test_a_layer_of_many_files_is_not_held() -> None:
    """Nor is one with long names refused."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(50):
            tar.addfile(tarfile.TarInfo(f"{'d' * 200}/{index}-é"))
    forward = layers._Forward(io.BytesIO(buffer.getvalue()), 1 << 30)
    assert len([member.name for member in layers._members(forward)]) == 50
