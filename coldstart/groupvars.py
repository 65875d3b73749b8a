"""`group_vars/` and `host_vars/` beside an inventory: which files there belong to a name, and what they say.

As Ansible finds them: `NAME`, `NAME.yml`, `NAME.yaml` or `NAME.json`, or a folder NAME with such files in it, sorted,
later ones winning. Files of names that are not in the inventory are another inventory's. Of a name that is, nothing is
passed over in silence: what Ansible would skip - a second file beside the first, another ending - is refused, and so is
what is not plain YAML (vault, INI, templates).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coldstart import piped, variables, yamlfile
from coldstart.errors import DocumentError

_ENDINGS = ("", ".yml", ".yaml", ".json")
_NO_VARIABLES = (".md", ".rst", ".txt", ".bak", ".orig", ".swp", ".pyc", ".pyo")  # Ansible skips them, and so may we
_PIPE = "or let Ansible read it: ansible-inventory -i {} --list, and INVENTORY as `-`"


class Folders:
    """The folders beside one inventory. Each file is read once."""

    def __init__(self, inventory: str) -> None:
        self._inventory = inventory
        self._beside = Path(inventory).parent
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for kind in ("group_vars", "host_vars"):
            if (self._beside / kind).exists() and not (self._beside / kind).is_dir():
                raise self._refuse(self._beside / kind, "is no folder", "rename it")

    def vars(self, kind: str, name: str) -> Mapping[str, Any]:
        """All that the files of a group (`group_vars`) or host (`host_vars`) say."""
        if (kind, name) not in self._known:
            merged: dict[str, Any] = {}
            for file in self._files(self._beside / kind, name):
                merged |= self._read(file)
            self._known[kind, name] = merged
        return self._known[kind, name]

    def _files(self, folder: Path, name: str) -> Iterator[Path]:
        there = [folder / f"{name}{ending}" for ending in _ENDINGS if (folder / f"{name}{ending}").exists()]
        if len(there) > 1:
            raise self._refuse(there[1], f"Ansible reads only {there[0].name}, which is also there", "make them one")
        for other in folder.glob(f"{name}.*"):
            if other.stem == name and other.suffix not in (*_ENDINGS, *_NO_VARIABLES):
                raise self._refuse(other, "only YAML and JSON are read", f"rename it {name}.yaml")
        for path in there:
            yield from self._inside(path) if path.is_dir() else (path,)

    def _inside(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.endswith("~") or path.suffix in _NO_VARIABLES:
                continue
            if path.suffix not in _ENDINGS or (path.is_dir() and path.suffix):
                raise self._refuse(path, "only YAML and JSON are read", "give it the ending .yaml")
            yield from self._inside(path) if path.is_dir() else (path,)

    def _read(self, file: Path) -> Mapping[str, Any]:
        try:
            if _is_vault(file):
                raise DocumentError(f"{file}:1: encrypted by ansible-vault: secrets are neither needed nor read here")
            document = piped.load(file)
            return variables.checked(document, document.data, ())
        except yamlfile.EmptyDocumentError:
            return {}
        except DocumentError as error:
            raise DocumentError(error.message, hint="; ".join(filter(None, (error.hint, self._pipe())))) from None

    def _refuse(self, path: Path, message: str, hint: str) -> DocumentError:
        return DocumentError(f"{path}:1: {message}", hint=f"{hint}; {self._pipe()}")

    def _pipe(self) -> str:
        return _PIPE.format(self._inventory)


def _is_vault(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return opened.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False  # told by whoever reads it
