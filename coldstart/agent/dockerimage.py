"""Images in an engine: what is there, how they come in, how ours go out, and the files their layers are.

A name is no identity: an image is there if its id is. What we bring gets a name under `coldstart.local/`, by which
`clean` finds it again; what was there before keeps the names it has and gets none of ours, so that it is never removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coldstart.agent.dockerapi import ApiError, Engine
from coldstart.agent.records import Image

OURS = "coldstart.local/"
_PULLED = re.compile(r"127\.0\.0\.1:\d+/coldstart\.local/")  # a name that something was fetched by


@dataclass(frozen=True)
class Pulled:
    """Layers that a pull brought, and those that the engine had; podman does not say."""

    layers: int
    had: int


def find(engine: Engine, image: Image) -> dict[str, Any]:
    """The engine's description of the image, empty if it lacks it. Without an id it is whatever has the name."""
    for name in filter(None, (image.id, image.reference)):
        details = inspect(engine, name)
        if details and (not image.id or is_image(details, image)):
            return details
    return {}


def is_image(details: Mapping[str, Any], image: Image) -> bool:
    """By its id: of its config, or, with containerd's store, of its manifest."""
    return bare(details["Id"]) in (bare(image.id), bare(image.digest))


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    """Empty if there is no such image."""
    try:
        details: dict[str, Any] = engine.call("GET", f"/images/{name}/json")
    except ApiError as error:
        if error.status != 404:
            raise
        return {}
    return details


def pull(engine: Engine, image: Image, port: int) -> Pulled:
    """Have the engine fetch it from the registry on this port of its loopback, and give it our name."""
    pulled = fetch(engine, image, port)
    adopt(engine, image)
    return pulled


def fetch(engine: Engine, image: Image, port: int, repository: str = "") -> Pulled:
    """The fetching alone. The image has the registry's name until `adopt`."""
    source = f"127.0.0.1:{port}/{repository or image.reference.rpartition(':')[0]}"
    if engine.podman:  # which wants TLS even of its own loopback, unless told in its own language
        name = f"{source}@{image.digest}"
        pulling = engine.text("/libpod/images/pull", "POST", reference=name, tlsVerify="false")
    else:
        pulling = engine.text("/images/create", "POST", fromImage=source, tag=image.digest)
    said = _events(pulling)
    for event in said:
        if "error" in event:
            raise ApiError(0, f"the engine could not pull it: {event['error']}")
    states = [event.get("status") for event in said]
    return Pulled(states.count("Pull complete"), states.count("Already exists"))


def load(engine: Engine, file: str) -> None:
    """Have the engine take an archive, which says its name."""
    with open(file, "rb") as archive:
        answer = engine.upload("/images/load", archive, quiet="1")
    if not re.search(r"Loaded image(?: ID)?: ", answer):
        raise ApiError(0, f"the archive was not loaded: {answer.strip()[-300:]}")


def adopt(engine: Engine, image: Image) -> None:
    """Give it our name in place of the one it was fetched by, also if that was long ago, by a pull that was killed.
    What is theirs gets none."""
    details = find(engine, image)
    fetched = [name for name in names_of(details) if _PULLED.match(name)]
    if fetched and is_ours(details):
        kept, _, tag = image.reference.rpartition(":")
        engine.call("POST", f"/images/{fetched[0]}/tag", repo=kept, tag=tag)
    remove(engine, fetched)


def names_of(details: Mapping[str, Any]) -> list[str]:
    """Tags, then names with a digest."""
    names = [name for kind in ("RepoTags", "RepoDigests") for name in details.get(kind) or ()]
    return [name for name in names if not name.startswith("<none>")]


def is_ours(details: Mapping[str, Any]) -> bool:
    """Whether we brought it, and nobody else has named it since."""
    names = names_of(details)
    return bool(names) and all(name.startswith(OURS) or _PULLED.match(name) for name in names)


def ours(engine: Engine) -> list[dict[str, Any]]:
    """Descriptions of all that we brought."""
    listed = engine.call("GET", "/images/json") or []
    return [details for image in listed if is_ours(image) and (details := inspect(engine, image["Id"]))]


def remove(engine: Engine, names: Iterable[str]) -> list[str]:
    """Take names of ours from images; one without another is gone, with the layers that nothing else needs."""
    # Some engines list every tag with its digest as well; such a name could be taken for another's of the same image.
    mine = [name for name in names if (name.startswith(OURS) and "@" not in name) or _PULLED.match(name)]
    for name in mine:
        try:
            engine.call("DELETE", f"/images/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
    return mine


def remove_ours(engine: Engine) -> list[str]:
    """Remove every image that we brought; say which. ApiError if some stay, because something uses them."""
    removed, stay = [], []
    for image in engine.call("GET", "/images/json") or []:
        try:
            removed += remove(engine, names_of(image))
        except ApiError as error:
            stay.append(str(error))
    if stay:
        raise ApiError(0, "; ".join(stay))
    return [f"engine image {name}" for name in removed]


def layer_folders(details: Mapping[str, Any]) -> list[str]:
    """Where the engine keeps the image's layers; none if it does not say."""
    data = (details.get("GraphDriver") or {}).get("Data") or {}
    return [folder for key in ("UpperDir", "LowerDir") for folder in (data.get(key) or "").split(":") if folder]


def layer_files(details: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Every file of the image's layers, and why they are not known if they are not."""
    folders = layer_folders(details)
    if not folders:
        return (), "the engine does not say where it keeps the layers (containerd image store)"
    if not all(os.access(folder, os.R_OK | os.X_OK) for folder in folders):
        return (), f"no permission to read the layers ({folders[0]}): page-cold needs root"
    return tuple(path for folder in folders for path in _regular_files(folder)), ""


def _regular_files(folder: str) -> list[str]:
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]


def _events(stream: bytes) -> list[dict[str, Any]]:
    """A stream of JSON objects, one to a line."""
    try:
        return [json.loads(line) for line in stream.splitlines() if line.strip()]
    except ValueError:
        raise ApiError(0, f"the engine's answer is not JSON: {stream[-60:]!r}") from None


def bare(digest: str) -> str:
    """podman leaves the algorithm out."""
    return digest.rpartition(":")[2]
