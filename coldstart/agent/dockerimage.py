"""Images in an engine: loading an archive, finding what it became, and the files its layers are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from coldstart.agent.dockerapi import ApiError, Engine
from coldstart.agent.records import Image

OURS = "coldstart.local/"  # tags that name the content


def load(engine: Engine, image: Image, file: str) -> str:
    """The engine's id of the image: of what `file` holds, loaded unless it is there, or of a tag the engine has."""
    if not file:
        return _id_of(engine, image.reference)
    if image.reference.startswith(OURS):  # it need not be loaded again
        try:
            return _id_of(engine, image.reference)
        except ApiError as error:
            if error.status != 404:
                raise
    with open(file, "rb") as archive:
        answer = engine.upload("/images/load", archive, quiet="1")
    return _id_of(engine, loaded_reference(answer))


def remove_ours(engine: Engine) -> list[str]:
    """Remove every image under a tag of ours; say which."""
    listed = engine.call("GET", "/images/json", filters=json.dumps({"reference": [OURS + "*"]})) or []
    tags = [tag for image in listed for tag in image["RepoTags"] or () if tag.startswith(OURS)]
    for tag in tags:
        engine.call("DELETE", f"/images/{tag}")
    return [f"engine image {tag}" for tag in tags]


def loaded_reference(answer: str) -> str:
    """The tag or id that the engine says it has loaded; ApiError with its own words if it has not."""
    loaded = re.findall(r"Loaded image(?: ID)?: ([^\s\"\\]+)", answer)
    if not loaded:
        raise ApiError(0, f"the archive was not loaded: {answer.strip()[-300:]}")
    return str(loaded[-1])


def layer_files(details: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Every file of the image's layers, and why they are not known if they are not."""
    driver = details.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    folders = [folder for key in ("UpperDir", "LowerDir") for folder in (data.get(key) or "").split(":") if folder]
    if not folders:
        return (), "the engine does not say where it keeps the layers (containerd image store)"
    if not all(os.access(folder, os.R_OK | os.X_OK) for folder in folders):
        return (), f"no permission to read the layers ({folders[0]}): page-cold needs root"
    return tuple(path for folder in folders for path in _regular_files(folder)), ""


def _regular_files(folder: str) -> list[str]:
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]


def _id_of(engine: Engine, reference: str) -> str:
    return str(engine.call("GET", f"/images/{reference}/json")["Id"])
