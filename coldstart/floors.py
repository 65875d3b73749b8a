"""Guard rails of a node: what must stay free there, and how many instances may run at once. Pure.

They come from the inventory, or are these defaults; an agent makes no boot below a floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coldstart.agent import floors
from coldstart.model import Node

MEMORY_BYTES = 128 << 20  # the agent, an engine's answer and a shell still have room
DISK_BYTES = 512 << 20  # a log or an update of the owner's must still fit


@dataclass(frozen=True)
class Floors:
    """memory: available; disk: free where images are kept; in bytes. max_parallel: instances at once."""

    memory_bytes: int
    disk_bytes: int
    max_parallel: int


def floors_of(node: Node) -> Floors:
    """A node's, from its variables."""
    told = node.settings
    return Floors(
        told.get("coldstart_memory_floor", MEMORY_BYTES),
        told.get("coldstart_disk_floor", DISK_BYTES),
        told.get("coldstart_max_parallel", 1),
    )


def settings_of(node: Node) -> Mapping[str, str]:
    """What the node's agent is told of it: its own variables, for the runtimes, and its floors."""
    found = floors_of(node)
    own = {k: v for k, v in node.settings.items() if k.startswith("coldstart_") and isinstance(v, str)}
    return {**own, floors.MEMORY: str(found.memory_bytes), floors.DISK: str(found.disk_bytes)}
