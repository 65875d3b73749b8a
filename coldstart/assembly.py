"""What was found of an image, held against everything that refers to it, becomes a Source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coldstart import layers
from coldstart.archive import OUR_ARCH
from coldstart.outer import UNTRUSTED, Extent, Outer
from coldstart.source import LAYER_TYPE, Blob, Source, manifest_of

MAX_LAYERS = 127  # engines take no more
BY_ARCH = "images differ by architecture: image: {x86_64: FILE, aarch64: FILE}"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ELSEWHERE = ("nondistributable", "foreign")


@dataclass(frozen=True)
class Found:
    """A layer where its image says it is. digest: what it should have as it is stored; media_type: what it is said to
    be; both '' if nobody says."""

    name: str
    extent: Extent
    digest: str = ""
    media_type: str = ""


@dataclass(frozen=True)
class Description:
    """What counts of a config."""

    architecture: str
    diff_ids: tuple[str, ...]


def describe(outer: Outer, config: bytes) -> Description:
    """ImageError if it is no config of an image for Linux."""
    values = outer.object(config, "the image's config")
    architecture = outer.text(values, "architecture")
    system = outer.text(values, "os")
    if system != "linux":
        raise outer.error(f"an image for {system}, not for linux", "name another")
    root = values.get("rootfs")
    if not isinstance(root, dict) or root.get("type") != "layers":
        raise outer.error("its config has no rootfs of layers")
    diff_ids = outer.texts(root, "diff_ids")
    if not all(DIGEST.fullmatch(each) for each in diff_ids):
        raise outer.error("its config names a layer by something else than sha256")
    return Description(OUR_ARCH.get(architecture, architecture), tuple(diff_ids))


def assemble(
    outer: Outer,
    arch: str,
    *,
    config: Blob,
    found: Sequence[Found],
    manifest: Blob | None = None,
) -> Source:
    """manifest: None if it has none that a registry could serve. ImageError if anything is not what it should be."""
    described = describe(outer, config.data)
    if described.architecture != arch:
        raise outer.error(f"an image for {described.architecture}, but the node is {arch}", BY_ARCH)
    if len(found) != len(described.diff_ids):
        what = f"it has {len(found)} layers, but its config names {len(described.diff_ids)}"
        raise outer.error(what, UNTRUSTED)
    if len(found) > MAX_LAYERS:
        raise outer.error(f"it has {len(found)} layers; engines take {MAX_LAYERS}", "build it with fewer steps")
    measured = [_measured(outer, each, diff_id) for each, diff_id in zip(found, described.diff_ids, strict=True)]
    blobs = tuple(_blob(each, layer) for each, layer in zip(found, measured, strict=True))
    return Source(
        architecture=described.architecture,
        manifest=manifest or manifest_of(config, blobs),
        config=config,
        layers=blobs,
        diff_ids=described.diff_ids,
        unpacked_bytes=tuple(layer.unpacked_bytes for layer in measured),
    )


def refuse_elsewhere(outer: Outer, media_type: Any) -> None:
    """A layer's media type that says that its bytes are not to be had, or not to be read."""
    if not isinstance(media_type, str):
        raise outer.error("a layer without a media type")
    if any(word in media_type for word in _ELSEWHERE):
        raise outer.error(
            f"a layer of it may not be passed on ({media_type})", "build it on a base without such layers"
        )
    if "encrypted" in media_type:
        raise outer.error(f"a layer of it is encrypted ({media_type})", "decrypt it: skopeo copy --decryption-key")


def _measured(outer: Outer, found: Found, diff_id: str) -> layers.Layer:
    layer = layers.measure(found.extent)
    if layer.damage:
        raise outer.error(f"its layer {found.name} is damaged: {layer.damage}")
    if found.digest and layer.digest != found.digest:
        raise outer.error(f"its layer {found.name} is damaged: it is {layer.digest}, not {found.digest}")
    if layer.diff_id and layer.diff_id != diff_id:
        what = f"its layer {found.name} is damaged: unpacked it is {layer.diff_id}, but its config says {diff_id}"
        raise outer.error(what)
    return layer


def _blob(found: Found, layer: layers.Layer) -> Blob:
    extent = found.extent
    media_type = found.media_type or LAYER_TYPE + layer.compression
    return Blob(layer.digest, extent.size_bytes, media_type, extent.path, extent.offset)
