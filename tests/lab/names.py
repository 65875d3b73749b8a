"""What a lab calls its things. Each has a number of its own on this machine, taken as long as it exists: names of
namespaces and groups, and addresses, follow from it, so that whatever a lab that died has left is found by them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STATES = Path("/run/coldstart-lab")
MOST_LABS = 16
CONTROLLER = 254  # host number of this machine, and of a jump host in the segment behind it


@dataclass(frozen=True)
class Names:
    """Of the lab with this number."""

    number: int

    @property
    def control(self) -> str:
        """The one interface that this machine's own network namespace shows."""
        return f"cslab-{self.number}"

    @property
    def group(self) -> str:
        return f"cslab/{self.number}"

    @property
    def state(self) -> Path:
        """A file that says where the lab's folder is."""
        return STATES / str(self.number)

    def netns(self, node: str) -> str:
        return f"cslab-{self.number}-{node}"

    def switch(self, jump: str = "") -> str:
        """Network namespace of the lab's own switch, or of the one behind a jump host."""
        return f"cslab-{self.number}.{jump or 'lan'}" + (".lan" if jump else "")

    def address(self, segment: int, host: int) -> str:
        return f"10.{77 + self.number}.{segment}.{host}"

    def owns(self, netns: str) -> bool:
        return netns.startswith((f"cslab-{self.number}-", f"cslab-{self.number}."))


@dataclass(frozen=True)
class State:
    """owner: the process that the lab ends with; 0: none, it stays until it is taken down."""

    names: Names
    folder: Path
    owner: int

    @property
    def is_orphan(self) -> bool:
        return bool(self.owner) and not Path(f"/proc/{self.owner}").exists()


def take(folder: Path, owner: int) -> Names | None:
    """A free number, from now on taken; None if there is none."""
    STATES.mkdir(exist_ok=True)
    for names in map(Names, range(MOST_LABS)):
        try:
            fd = os.open(names.state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(fd, "w") as file:
            json.dump({"folder": str(folder), "owner": owner}, file)
        return names
    return None


def give_back(names: Names) -> None:
    names.state.unlink(missing_ok=True)
    try:
        STATES.rmdir()
    except OSError:  # other labs
        pass


def states() -> Iterator[State]:
    """Of all labs on this machine."""
    for names in map(Names, range(MOST_LABS)):
        try:
            data = json.loads(names.state.read_text())
        except FileNotFoundError:
            continue
        except ValueError:  # it was about to be written, or its writer died
            data = {"folder": "/nonexistent", "owner": 0}
        yield State(names, Path(data["folder"]), data["owner"])


def find(folder: Path) -> State | None:
    return next((state for state in states() if state.folder == folder), None)
