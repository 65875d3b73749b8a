"""Images of the controller's own Docker engine, by tag. The SDK's one door.

A tag is not an identity: it is asked for the image's id first, and by that the image is saved, once. A tag that moves
is another id, thus another file.
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from coldstart import caches, sources
from coldstart.agent import engine
from coldstart.agent.dockerapi import socket_path
from coldstart.archive import OUR_ARCH
from coldstart.errors import ImageError
from coldstart.source import Source

ASK_LIMIT_S = 15
SAVE_LIMIT_S = 600  # without a byte: an engine may gather all layers before the first
CHUNK_BYTES = 1 << 20


def export(tag: str, arch: str) -> Source | None:
    """The image that this machine's engine has under that name, for `arch`; None if there is no engine, or no such
    image for it. ImageError if it is there and cannot be had."""
    host = _host()
    if not host:
        return None
    import docker  # type: ignore[import-untyped]  # here: 0.2 s that only a tag must pay

    try:
        client = docker.from_env(environment={**os.environ, "DOCKER_HOST": host}, timeout=ASK_LIMIT_S)
    except (docker.errors.DockerException, OSError):
        return None
    with closing(client):
        try:
            image = client.images.get(tag)
            found = image.attrs.get("Architecture", "")
            if OUR_ARCH.get(found, found) != arch:
                return None
            path = _saved(client, image.id)
        except docker.errors.NotFound:
            return None
        except (docker.errors.DockerException, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ImageError(f"{tag}: this machine's engine cannot save it: {first}", hint="look at its log") from None
    return dataclasses.replace(_read(path, arch), tags=(tag,))


def _host() -> str:
    """DOCKER_HOST, or where an engine of this machine listens; '' if there is none. Looked at first, because the SDK
    leaves a socket open where nobody answers."""
    try:
        path = socket_path("", os.environ)
    except ValueError:
        return os.environ["DOCKER_HOST"]
    return f"unix://{path}" if engine.answers(path) else ""


def _saved(client: Any, image_id: str) -> Path:
    def make(file: IO[bytes]) -> None:
        client.api.timeout = SAVE_LIMIT_S
        for data in client.api.get_image(image_id, CHUNK_BYTES):
            file.write(data)

    return caches.fetch(caches.folder("images") / f"saved-{image_id.replace(':', '-')}.tar", make)


def _read(path: Path, arch: str) -> Source:
    """A file that is no good is not kept: the next time it is saved anew."""
    try:
        return sources.read(path, arch)
    except ImageError:
        path.unlink(missing_ok=True)
        raise
