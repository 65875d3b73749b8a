"""One node's part of a push without a sweep: every image that its targets need, over one link or several."""

from __future__ import annotations

from coldstart import bundle
from coldstart.errors import ImageError
from coldstart.events import NotPushed, Skipped
from coldstart.lasting import Lasting, Work
from coldstart.link import Conversation
from coldstart.model import Node, Target
from coldstart.nodetask import A_BOOTS_WORTH_BYTES, Common
from coldstart.push import Begun, NoRuntime, Pusher, PushFailed


class Delivery:
    """targets: those that the node may be given."""

    def __init__(self, node: Node, targets: tuple[Target, ...], common: Common) -> None:
        self._node = node
        self._targets = targets
        self._common = common
        self._done: set[str] = set()
        self._sent_bytes = 0
        self._begun: Begun = {}

    async def run(self, run: str, code: bundle.Bundle, reconnect_s: float) -> None:
        lasting = Lasting(run, self._node, self._common.connect, self._common.emit, reconnect_s)
        await lasting.run(code, Work(self._work, self._progress))

    def _progress(self) -> int:
        return len(self._done) + self._sent_bytes // A_BOOTS_WORTH_BYTES

    async def _work(self, talk: Conversation, arch: str) -> None:
        pusher = self._common.pusher(self._node.name, talk, self._begun)
        try:
            for target in self._targets:
                if target.name not in self._done:
                    await self._push(pusher, target, arch)
                    self._done.add(target.name)
        finally:
            self._sent_bytes += pusher.sent_bytes

    async def _push(self, pusher: Pusher, target: Target, arch: str) -> None:
        try:
            previous = await self._common.catalogue.previous(target, arch)
            for image in (previous, await self._common.catalogue.image(target, arch, self._node)):
                if image is not None:
                    await pusher.push(target, image)
        except NoRuntime as error:
            self._common.emit(Skipped(self._node.name, target.name, str(error)))
        except (ImageError, PushFailed, OSError) as error:
            invalid = isinstance(error, ImageError)
            self._common.emit(NotPushed(self._node.name, target.name, str(error), invalid))
