"""A playbook for one image that somebody names on the command line: `--image my.tar --port 3000 --path /health`.

It is written as text and read like any other, so that its faults are found in the same way, and a run keeps it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from coldstart import playbook as playbooks
from coldstart import yamlfile
from coldstart.agent import runtimes
from coldstart.errors import DocumentError, UsageError
from coldstart.model import Playbook

NAME = "image"


@dataclass(frozen=True)
class OwnImage:
    """reference: file, folder or tag; port, path: where it answers with status 200 once it is ready."""

    reference: str
    port: int | None
    path: str = "/"
    runtime: str = "docker"


def playbook(own: OwnImage, like: Playbook) -> Playbook:
    """One target; start kinds, load and order as in `like`. UsageError for what it cannot be."""
    if own.port is None:
        raise UsageError(f"--image {own.reference}: where does it answer?", hint="add --port N, and --path if not /")
    if not own.path.startswith("/"):
        raise UsageError(f"--path {own.path!r} is not a path of a URL", hint="it starts with /")
    if own.runtime not in runtimes.names():
        known = runtimes.names()
        raise UsageError(f"--runtime {own.runtime}: no such runtime", hint=yamlfile.suggestion(own.runtime, known))
    text = json.dumps(_document(own, like), indent=2) + "\n"
    try:
        read = playbooks.parse(yamlfile.parse(text, NAME))
        return replace(read, targets=tuple(replace(target, where="--image") for target in read.targets))
    except DocumentError as error:
        raise UsageError(f"--image: {error.message}", hint=error.hint) from None


def _document(own: OwnImage, like: Playbook) -> dict[str, object]:
    offered = runtimes.load(own.runtime).Runtime.starts
    load = like.load
    return {
        "name": NAME,
        "ready": {"http": {"port": own.port, "path": own.path}, "timeout": "60s"},
        "targets": {_target(own.reference): {"runtime": own.runtime, "image": own.reference}},
        "start": [start for start in like.starts if start in offered],
        "load": {
            "shape": load.shape,
            "boots": load.boots,
            "gap": f"{load.gap_ns}ns",
            "hold": f"{load.hold_ns}ns",
        },
        "order": like.order,
        "sync": like.sync,
    }


def _target(reference: str) -> str:
    """A target's name, from what people call the file or tag."""
    stem = re.sub(r"\.(?:tar|tar\.gz|tgz|elf|img)$", "", reference.rstrip("/").rpartition("/")[2].lower())
    return re.sub("[^a-z0-9]+", "-", stem).strip("-")[:40] or NAME
