"""Where nodes wait for each other before a wave, so that one slow to prepare does not start late, and a lost one holds
nobody up.

A barrier whose members may leave: it opens when everybody who is still a member has arrived. What the last one to
arrive decides (the instant) is the same for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from coldstart.clock import lead_ns

_Brought = TypeVar("_Brought")
_Decision = TypeVar("_Decision")


@dataclass
class _Round(Generic[_Brought, _Decision]):
    """One opening of the barrier. brought: what each arrival brought along, by member."""

    opened: asyncio.Future[_Decision]
    brought: dict[str, _Brought] = field(default_factory=dict)


class Barrier(Generic[_Brought, _Decision]):
    """members: who must arrive. decide: from what they brought, what all are told; called once a round."""

    def __init__(self, members: Iterable[str], decide: Callable[[dict[str, _Brought]], _Decision]) -> None:
        self._members = set(members)
        self._decide = decide
        self._round: _Round[_Brought, _Decision] | None = None

    async def arrive(self, member: str, brought: _Brought) -> _Decision:
        """Wait for the others. Who had left is a member again. Cancelled: it has not arrived."""
        self._members.add(member)
        if self._round is None:
            self._round = _Round(asyncio.get_running_loop().create_future())
        mine = self._round
        mine.brought[member] = brought
        self._open_if_complete()
        try:
            return await asyncio.shield(mine.opened)
        except asyncio.CancelledError:
            mine.brought.pop(member, None)
            raise

    def admit(self, members: Iterable[str]) -> None:
        """They will come: the others wait for them."""
        self._members.update(members)

    def leave(self, member: str) -> None:
        """It will not come (again): the others need not wait."""
        self._members.discard(member)
        if self._round is not None:
            self._round.brought.pop(member, None)
            self._open_if_complete()

    def _open_if_complete(self) -> None:
        if self._round is None or not self._members <= self._round.brought.keys():
            return
        complete, self._round = self._round, None
        if complete.brought:
            complete.opened.set_result(self._decide(complete.brought))


@dataclass(frozen=True)
class Release:
    """wave: its number within the run; at_ns: when, on the controller's monotonic clock."""

    wave: int
    at_ns: int


class Gathering:
    """The nodes of one sweep. Before every wave they meet twice: when all are staged, and when all clocks have just
    been compared - so that every comparison is young when the instant is fixed."""

    def __init__(self, members: Iterable[str], first_wave: int = 0) -> None:
        known = set(members)
        self._next = first_wave
        self._compared: Barrier[tuple[int, int], Release] = Barrier(known, self._release)
        # Whoever was staged will have its clock compared: one that came back is waited for there, too.
        self._staged: Barrier[None, None] = Barrier(known, self._compared.admit)

    async def staged(self, member: str) -> None:
        """Its first boot is prepared, or it has none in this wave."""
        await self._staged.arrive(member, None)

    async def compared(self, member: str, rtt_ns: int, gap_ns: int) -> Release:
        """Its clock is known. The instant leaves time for the slowest, and for the idle time that a boot is to have."""
        return await self._compared.arrive(member, (rtt_ns, gap_ns))

    def leave(self, member: str) -> None:
        """Until it is staged again."""
        self._staged.leave(member)
        self._compared.leave(member)

    def _release(self, known: dict[str, tuple[int, int]]) -> Release:
        ahead_ns = max(lead_ns([rtt_ns for rtt_ns, _ in known.values()]), *(gap_ns for _, gap_ns in known.values()))
        release = Release(self._next, time.monotonic_ns() + ahead_ns)
        self._next += 1
        return release
