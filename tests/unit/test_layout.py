"""OCI layouts: which image is chosen, and that nothing is believed which a digest can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_fixtures import LAYER, OCI, PACKED, SECOND, ZSTD, Layout, as_json, config, identity, named, on, sha256

from coldstart import sources
from coldstart.errors import ImageError
from coldstart.source import Source

DOCKER = "application/vnd.docker"
PLAIN = "layer.v1.tar"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Source]:
    def write_and_read(layout: Layout, arch: str = "x86_64") -> Source:
        (tmp_path / "app.tar").write_bytes(layout.tar())
        return sources.read(tmp_path / "app.tar", arch)

    return write_and_read


def test_its_own_manifest(read: Callable[..., Source], tmp_path: Path) -> None:
    """Served as it is, byte by byte; a folder is the same."""
    layout = Layout()
    layers = ((LAYER, PLAIN), (PACKED, f"{PLAIN}+gzip"), (ZSTD, f"{PLAIN}+zstd"))
    entry = layout.manifest(config(LAYER, SECOND, b"?"), *layers, annotations={"who": "test"})
    source = read(layout.index({**entry, **named("app:1")}))
    assert source.manifest.digest == entry["digest"]
    assert json.loads(source.manifest.data)["annotations"] == {"who": "test"}
    assert [blob.media_type for blob in source.layers] == [f"{OCI}.{kind}" for _, kind in layers]
    assert [b"".join(blob.read()) for blob in source.layers] == [data for data, _ in layers]
    assert source.unpacked_bytes == (1000, 6, None)
    assert source.tags == ("app:1",)
    assert identity(sources.read(layout.folder(tmp_path / "folder"), "x86_64")) == identity(source)


def test_of_docker_types(read: Callable[..., Source]) -> None:
    """Docker's second kind in a layout, as registries have it."""
    layout = Layout()
    described = {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
        "config": layout.add(config(SECOND), f"{DOCKER}.container.image.v1+json"),
        "layers": [layout.add(PACKED, f"{DOCKER}.image.rootfs.diff.tar.gzip")],
    }
    entry = layout.add(as_json(described), described["mediaType"])
    listed = {"schemaVersion": 2, "manifests": [{**entry, **on("amd64")}]}
    source = read(layout.index(layout.add(as_json(listed), f"{DOCKER}.distribution.manifest.list.v2+json")))
    assert source.manifest.media_type == f"{DOCKER}.distribution.manifest.v2+json"
    assert source.layers[0].media_type == f"{DOCKER}.image.rootfs.diff.tar.gzip"


# --- choosing ---


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_by_architecture(read: Callable[..., Source], arch: str) -> None:
    """In a nested index, beside attestations and another system; names come from above."""
    layout = Layout()
    entries = [
        {**layout.image("amd64"), **on("amd64")},
        {**layout.image("arm64"), **on("arm64", variant="v8")},
        {**layout.image("s390x"), "platform": {"architecture": "amd64", "os": "windows"}},
        {**layout.image("ppc64le"), "platform": {"architecture": "unknown", "os": "unknown"}},
        {**layout.add(b"{}", "application/vnd.example+json")},
    ]
    inner = layout.add(as_json({"schemaVersion": 2, "manifests": entries}), "index.v1+json")
    source = read(layout.index({**inner, **named("1", "docker.io/library/app:1")}), arch)
    assert source.architecture == arch
    assert source.tags == ("docker.io/library/app:1",)
    assert source.manifest.digest == entries[["x86_64", "aarch64"].index(arch)]["digest"]


def test_what_is_not_wanted_need_not_be_there(read: Callable[..., Source]) -> None:
    """An engine saves an index whole, but of the images only those that it has."""
    layout = Layout()
    other = {**layout.image("arm64"), **on("arm64")}
    layout.files = {name: data for name, data in layout.files.items() if not name.startswith("blobs/")}
    layout.index({**layout.image(), **on("amd64")}, other)
    assert read(layout).architecture == "x86_64"
    with pytest.raises(ImageError, match=r"its manifest sha256:.* is missing in it"):
        read(layout, "aarch64")


def test_without_platforms_the_config_tells(read: Callable[..., Source]) -> None:
    layout = Layout()
    layout.index(layout.image("arm64"), layout.image())
    assert (read(layout).architecture, read(layout, "aarch64").architecture) == ("x86_64", "aarch64")


def test_several_without_platforms(read: Callable[..., Source]) -> None:
    """The one that has a name; otherwise it is said what there is."""
    layout = Layout()
    first, second = layout.image(), layout.image(layer=SECOND)
    assert read(layout.index(first, {**second, **named("two")})).manifest.digest == second["digest"]
    with pytest.raises(ImageError, match="2 images for x86_64: one, two"):
        read(layout.index({**first, **named("one")}, {**second, **named("two")}))
    with pytest.raises(ImageError, match="2 images for x86_64: without names") as error:
        read(layout.index(first, second))
    assert "skopeo" in error.value.hint


def test_one_image_under_two_names(read: Callable[..., Source]) -> None:
    layout = Layout()
    image = layout.image()
    assert read(layout.index({**image, **named("one")}, {**image, **named("two")})).tags == ("one", "two")


def test_variants(read: Callable[..., Source]) -> None:
    """What any machine can run goes first; if there is only a newer one, that."""
    layout = Layout()
    newer, plain = ({**layout.image(layer=layer), **on("amd64", **more)} for layer, more in VARIANTS)
    assert read(layout.index(newer, plain)).manifest.digest == plain["digest"]
    assert read(layout.index(newer)).manifest.digest == newer["digest"]


VARIANTS: tuple[tuple[bytes, dict[str, str]], ...] = ((LAYER, {"variant": "v3"}), (SECOND, {}))


@pytest.mark.parametrize("with_platform", [True, False])
def test_none_for_this_architecture(read: Callable[..., Source], with_platform: bool) -> None:
    """It is said what there is."""
    layout = Layout()
    entries = [{**layout.image(arch), **(on(arch) if with_platform else {})} for arch in ("arm64", "s390x")]
    with pytest.raises(ImageError, match="an image for aarch64, s390x, but the node is x86_64"):
        read(layout.index(*entries))


# --- refused ---


def built(change: Callable[[Layout, dict[str, Any]], Any]) -> Layout:
    """A layout with one image, its descriptor changed, or another in its place."""
    layout = Layout()
    image = layout.image()
    return layout.index({**image, **(change(layout, image) or {})})


def manifest(**more: Any) -> Layout:
    """A layout with one image, its manifest changed."""
    layout = Layout()
    data = layout.files[layout.image()["digest"].replace("sha256:", "blobs/sha256/")]
    values = {**json.loads(data), **more}
    return layout.index(layout.add(as_json(values), "manifest.v1+json"))


def of_layer(**more: Any) -> Layout:
    described = {"mediaType": f"{OCI}.{PLAIN}", "digest": sha256(LAYER), "size": len(LAYER)}
    return manifest(layers=[{**described, **more}])


def lied(real: bytes, stored: bytes) -> Layout:
    """Something else under its digest."""
    layout = Layout()
    layout.index(layout.image())
    layout.files[sha256(real).replace("sha256:", "blobs/sha256/")] = stored
    return layout


def nested(depth: int) -> Layout:
    layout = Layout()
    entry = layout.image()
    for _ in range(depth):
        entry = layout.add(as_json({"schemaVersion": 2, "manifests": [entry]}), "index.v1+json")
    return layout.index(entry)


def without(name: str, data: bytes | None = None) -> Layout:
    layout = Layout().index()
    del layout.files[name]
    layout.files |= {name: data} if data is not None else {}
    return layout


OTHER = sha256(b"other")


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        (Layout(), "index.json is missing"),
        (without("index.json", b"{"), "its index is damaged: no JSON"),
        (without("oci-layout", b'{"imageLayoutVersion": "2.0.0"}'), "version 2.0.0"),
        (without("oci-layout", b"{}"), "version None"),
        (Layout().index(), "lists no image"),
        (Layout().index("x"), "something else than images"),
        (Layout().index(schemaVersion=1), "schema 1"),
        (Layout().index(schemaVersion=3), "unknown kind"),
        (Layout().index(mediaType="x"), "unknown kind: x"),
        (built(lambda layout, image: {"mediaType": "application/x"}), "no image for linux"),
        (built(lambda layout, image: {"mediaType": f"{DOCKER}.distribution.manifest.v1+prettyjws"}), "schema 1"),
        (built(lambda layout, image: {"digest": OTHER}), "its manifest sha256:"),
        (built(lambda layout, image: {"digest": "sha512:00"}), "not named by a sha256"),
        (built(lambda layout, image: {"digest": "sha256:../../../etc/passwd"}), "not named by a sha256"),
        (built(lambda layout, image: {"digest": None}), "not named by a sha256"),
        (built(lambda layout, image: {"size": image["size"] + 1}), "its manifest sha256:"),
        (built(lambda layout, image: {"size": "1"}), "damaged"),
        (built(lambda layout, image: {"size": -1}), "damaged"),
        (built(lambda layout, image: {"platform": {"os": "linux"}}), "no architecture"),
        (built(lambda layout, image: on("amd64") | {"annotations": []}), ""),
        (built(lambda layout, image: {"annotations": ["x"]}), "annotations"),
        (built(lambda layout, image: named("two\nlines")), "annotations"),
        (built(lambda layout, image: {"platform": {"os": "linux", "architecture": "amd64", "variant": 1}}), "variant"),
        (built(lambda layout, image: {"platform": {"os": "windows", "architecture": "amd64"}}), "no image for linux"),
        (built(lambda layout, image: on("arm64")), "an image for aarch64, but the node is x86_64"),
        (nested(6), "without an end"),
        (manifest(schemaVersion=1), "schema 1"),
        (manifest(mediaType=f"{OCI}.index.v1+json"), "its manifest is of an unknown kind"),
        (manifest(config=None), "names no config"),
        (manifest(layers=None), "no layers"),
        (manifest(layers=[1]), "something else than layers"),
        (manifest(layers=[]), "0 layers, but its config names 1"),
        (manifest(config={"mediaType": "application/vnd.cncf.helm.config.v1+json"}), "not a container image"),
        (of_layer(mediaType=None), "without a media type"),
        (of_layer(mediaType=f"{OCI}.layer.nondistributable.v1.tar+gzip"), "may not be passed on"),
        (of_layer(mediaType=f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip"), "may not be passed on"),
        (of_layer(mediaType=f"{OCI}.{PLAIN}+gzip+encrypted"), "encrypted"),
        (of_layer(mediaType="application/wasm"), "unknown kind: application/wasm"),
        (of_layer(digest=OTHER), "its layer sha256:"),
        (of_layer(size=1), "its layer sha256:"),
        (of_layer(size=True), "its layer sha256:"),
        (lied(LAYER, LAYER[:-1] + b"x"), "is damaged: it is sha256:"),
        (lied(LAYER, LAYER[:-512]), "damaged"),
        (lied(config(LAYER), config(LAYER).replace(b"linux", b"Linux")), "its config is damaged"),
    ],
)
def test_refused(read: Callable[..., Source], layout: Layout, what: str) -> None:
    """The message names the file, says what, and what to do next."""
    if not what:  # an empty list of annotations is none
        assert read(layout).tags == ()
        return
    with pytest.raises(ImageError) as error:
        read(layout)
    assert "app.tar: " in str(error.value)
    assert what in str(error.value)
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_the_config_has_the_last_word(read: Callable[..., Source]) -> None:
    """The index says amd64, the config arm64."""
    layout = Layout()
    with pytest.raises(ImageError, match="an image for aarch64, but the node is x86_64"):
        read(layout.index({**layout.image("arm64"), **on("amd64")}))


def test_unpacked_it_must_be_what_the_config_says(read: Callable[..., Source]) -> None:
    """Both digests of a layer count."""
    layout = Layout()
    entry = layout.manifest(config(LAYER), (PACKED, f"{PLAIN}+gzip"))
    with pytest.raises(ImageError, match="unpacked it is"):
        read(layout.index(entry))


def test_links_in_a_folder(tmp_path: Path) -> None:
    """They are the user's own, and the digest tells whether it is right; a folder in a file's place is no file."""
    layout = Layout()
    folder = layout.index(layout.image()).folder(tmp_path / "folder")
    blob = folder / sha256(LAYER).replace("sha256:", "blobs/sha256/")
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    assert b"".join(sources.read(folder, "x86_64").layers[0].read()) == LAYER
    blob.unlink()
    blob.mkdir()
    with pytest.raises(ImageError, match="is missing in it"):
        sources.read(folder, "x86_64")
