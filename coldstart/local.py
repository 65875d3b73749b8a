"""The local link: the agent as a child process. The embedded default; no sshd, no privileges of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from coldstart import bundle
from coldstart.errors import NodeError
from coldstart.link import Lent, Serve
from coldstart.model import Node

KILL_S = 30.0
_TAIL_BYTES = 4096


class LocalLink:
    """stdin and stdout of a child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = bytearray()
        self._drain = asyncio.create_task(self._keep_tail())
        self._lent: list[tuple[asyncio.Server, Lent]] = []

    async def read(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(1 << 16)

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def lend(self, serve: Serve) -> int:
        """Its loopback is ours."""
        lent = Lent(serve)
        server = await asyncio.start_server(lent, "127.0.0.1", 0)
        self._lent.append((server, lent))
        return int(server.sockets[0].getsockname()[1])

    async def take_back(self) -> None:
        while self._lent:
            server, lent = self._lent.pop()
            server.close()
            lent.cut()

    async def close(self) -> str:
        """Close its stdin, which ends it; kill it only if it does not."""
        assert self._process.stdin is not None
        await self.take_back()
        self._process.stdin.close()
        try:
            async with asyncio.timeout(KILL_S):
                await self._process.wait()
                await self._drain  # open for as long as any process of the agent's lives
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone by now, or sudo's
                self._process.kill()
            self._drain.cancel()
        return self._stderr.decode("utf-8", "replace")

    async def _keep_tail(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 12):
            self._stderr += data
            del self._stderr[:-_TAIL_BYTES]


async def connect(node: Node, code: bundle.Bundle) -> LocalLink:
    """Start the agent beside us. In a session of its own: Ctrl-C is for the controller, which then ends it in order."""
    python = str(node.settings.get("ansible_python_interpreter") or sys.executable)
    become = ["sudo", "-n", "--"] if node.settings.get("ansible_become") else []
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *become, *bundle.command(python, code), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise NodeError(f"{node.name}: {python}: {error.strerror}", hint="set ansible_python_interpreter") from None
    link = LocalLink(process)
    try:
        await link.write(code.data)
    except OSError:
        said = (await link.close()).strip().splitlines() or ["it ended at once"]
        raise NodeError(f"{node.name}: {python}: {said[-1]}", hint="is it Python 3.9 or later?") from None
    return link
