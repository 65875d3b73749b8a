"""The inventories and playbooks that come with coldstart, and how a name on the command line becomes a file.

In a source tree (or an editable install) they lie beside the package; a wheel carries them inside it. A file of the
user's goes first; then `quick`, `quick.yaml` and `playbooks/quick.yaml` all mean the shipped one, so that what the
README says works from any folder.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from coldstart.errors import UsageError

Kind = Literal["inventories", "playbooks"]

_PACKAGE = Path(__file__).resolve().parent


def folder(kind: Kind, package: Path = _PACKAGE) -> Path:
    """Where the shipped files of a kind are. The wheel's place first: beside it lies whatever else is installed."""
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    """What is shipped, by the names `--playbook` takes."""
    return sorted(file.stem for file in folder(kind).glob("*.yaml"))


def path(kind: Kind, name: str) -> Path:
    """The file of a shipped name. KeyError if there is none."""
    if name not in names(kind):
        raise KeyError(name)
    return folder(kind) / f"{name}.yaml"


def find(kind: Kind, given: str) -> Path:
    """The file somebody means by `given`: theirs, or the shipped one of that name. UsageError lists what there is."""
    theirs = Path(given)
    if theirs.exists() and not theirs.is_dir():
        return theirs
    name = given.removeprefix(f"{kind}/").removesuffix(".yaml")
    known = names(kind)
    if name in known:
        return path(kind, name)
    if theirs.is_dir():
        raise UsageError(f"{given}: is a folder", hint="name a file in it")
    close = get_close_matches(name, known, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"{given}: no such file", hint=f"{guess}shipped {kind}: {', '.join(known) or 'none'}")
