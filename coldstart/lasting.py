"""A node's work over one link or, if that breaks, several. tenacity's door.

A broken link is opened again for as long as `reconnect_s` allows; what has been done by then is the work's business.
Whatever goes wrong is this node's, and never another's.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import tenacity

from coldstart import bundle
from coldstart.errors import ColdstartError, NodeError
from coldstart.events import ClockMoved, Event, LinkLost, NodeDone, NodeUp
from coldstart.floors import settings_of
from coldstart.link import Conversation, Link, NodeBusy, Unreachable
from coldstart.link import LinkLost as LostError
from coldstart.model import Node

FRUITLESS_LINKS = 3  # links in a row that brought nothing: the next will not either
RETRY_S = 0.5

Connect = Callable[[Node, bundle.Bundle], Awaitable[Link]]


@dataclass(frozen=True)
class Work:
    """What is to be done on a node, and how. do: with a conversation, on an architecture; done: how much has been,
    in any unit; cut: called when the link is lost, and at the end."""

    do: Callable[[Conversation, str], Awaitable[None]]
    done: Callable[[], int]
    cut: Callable[[], None] = lambda: None


class Lasting:
    """One node of run `run`. emit: takes what there is to tell; the last is NodeDone."""

    def __init__(
        self, run: str, node: Node, connect: Connect, emit: Callable[[Event], None], reconnect_s: float
    ) -> None:
        self._run = run
        self._node = node
        self._connect = connect
        self._emit = emit
        self._reconnect_s = reconnect_s
        self._links = 0
        self._leftovers: tuple[str, ...] = ()

    async def run(self, code: bundle.Bundle, work: Work) -> None:
        error = ""
        try:
            await self._run_until_done(code, work)
        except ColdstartError as failure:
            error = str(failure)
        except Exception as bug:  # noqa: BLE001 - whatever it was, it is this node's: the others go on
            at = traceback.extract_tb(bug.__traceback__)[-1]
            error = (
                f"{self._node.name}: a bug, please report it: {type(bug).__name__}: {bug} ({at.filename}:{at.lineno})"
            )
        finally:
            work.cut()
        self._emit(NodeDone(self._node.name, error, self._leftovers))

    async def _run_until_done(self, code: bundle.Bundle, work: Work) -> None:
        fruitless = 0
        while True:
            before = work.done()
            try:
                await self._one_link(code, work)
                return
            except LostError as lost:
                work.cut()
                fruitless = 0 if work.done() > before else fruitless + 1
                if fruitless >= FRUITLESS_LINKS or self._reconnect_s <= 0:
                    raise
                self._emit(LinkLost(self._node.name, lost.message))

    async def _one_link(self, code: bundle.Bundle, work: Work) -> None:
        """From connecting to goodbye."""
        talk, arch = await self._opened(code)
        try:
            async with talk:
                await work.do(talk, arch)
        finally:
            self._leftovers = talk.leftovers
            if talk.clock.slept_ns or talk.clock.stepped_ns:
                self._emit(ClockMoved(self._node.name, talk.clock.slept_ns, talk.clock.stepped_ns))

    async def _opened(self, code: bundle.Bundle) -> tuple[Conversation, str]:
        """A conversation whose agent is alone on its node, and the node's architecture. Tried again if there was a
        link before: that one's agent may still be cleaning up, or the node is on its way back."""
        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_exponential(multiplier=RETRY_S, max=5),
            stop=tenacity.stop_after_delay(self._reconnect_s),
            reraise=True,
        )
        return await again(self._open_once, code)

    def _may_pass(self, error: BaseException) -> bool:
        mine = isinstance(error, NodeBusy) and error.run == self._run
        return self._links > 0 and (mine or isinstance(error, LostError | Unreachable))

    async def _open_once(self, code: bundle.Bundle) -> tuple[Conversation, str]:
        talk = Conversation(self._node.name, await self._connect(self._node, code))
        try:
            hello = await talk.ask("hello", "hello", run=self._run, settings=settings_of(self._node))
            if hello["short"]:
                hint = "free some, or lower coldstart_memory_floor or coldstart_disk_floor"
                raise NodeError(f"{self._node.name}: {hello['short']}", hint=hint, kind="floor")
        except BaseException:
            await talk.end()
            raise
        self._links += 1
        swept = hello["swept"]
        self._emit(
            NodeUp(self._node.name, hello["facts"], tuple(swept["removed"]), tuple(swept["failed"]), hello["free"])
        )
        return talk, str(hello["facts"]["arch"])
