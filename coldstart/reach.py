"""How a node is reached: this machine's own agent as a child process, every other over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldstart import bundle, local
from coldstart.link import Link
from coldstart.model import Node

if TYPE_CHECKING:
    from coldstart.ssh import Fleet


class Reach:
    """Connects; close it when the last link is closed. accept_new_host_keys: of hosts that have none yet."""

    def __init__(self, *, accept_new_host_keys: bool = False) -> None:
        self._accept_new = accept_new_host_keys
        self._fleet: Fleet | None = None

    async def connect(self, node: Node, code: bundle.Bundle) -> Link:
        if node.settings.get("ansible_connection") == "local":
            return await local.connect(node, code)
        if self._fleet is None:
            from coldstart.ssh import Fleet  # 0.4 s that a sweep of this machine alone need not pay

            self._fleet = Fleet(accept_new=self._accept_new)
        return await self._fleet.connect(node, code)

    async def close(self) -> None:
        if self._fleet is not None:
            await self._fleet.close()
