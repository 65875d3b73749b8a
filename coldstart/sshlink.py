"""The link over SSH: the agent as the one session of a connection, and why an agent did not come to life."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import asyncssh

from coldstart import sudo
from coldstart.errors import NodeError
from coldstart.link import Lent, NotLent, Serve, Unreachable

START_S = 30.0  # for a login shell on a busy board, and some 60 kB of code over a thin link
END_S = 3.0  # an agent that was told goodbye is gone by then; one that was not told cleans up without us
_TAIL_BYTES = 4096

# What an agent's stderr and exit code say when it never spoke: (pattern, kind, text, hint).
_STILLBORN: tuple[tuple[str, str, str, str], ...] = (
    (r"coldstart: Python .* is too old", "python-too-old", "",
     "install Python 3.9 or later there, and name it in ansible_python_interpreter"),
    (r"(?i)not found|no such file|unknown command|not an executable", "no-python", "no Python there",
     "install python3, with coldstart prepare or by hand, or name one of 3.9 or later in ansible_python_interpreter"),
)  # fmt: skip


async def start(node: str, connection: asyncssh.SSHClientConnection, command: str, code: bytes) -> SshLink:
    """Run the agent's command and send it its code. The link owns the connection."""
    try:
        async with asyncio.timeout(START_S):
            process = await connection.create_process(command, encoding=None, term_type=None)
            link = SshLink(node, connection, process)
            # It may end at once (no Python); whoever reads or writes next is told the reason.
            with contextlib.suppress(OSError, NodeError):
                await link.write(code)
            return link
    except asyncssh.Error as error:
        connection.abort()
        raise Unreachable(f"{node}: no session: {error.reason}", kind="session") from None
    except TimeoutError:
        connection.abort()
        raise Unreachable(f"{node}: logged in, but no session within {START_S:g} s", kind="session") from None
    except BaseException:
        connection.abort()
        raise


class SshLink:
    """stdin and stdout of a session."""

    def __init__(
        self, node: str, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes]
    ) -> None:
        self._node = node
        self._connection = connection
        self._process = process
        self._heard = False
        self._stderr = bytearray()
        self._drain = asyncio.create_task(self._keep_tail())
        self._lent: list[tuple[asyncssh.SSHListener, Lent]] = []
        key = connection.get_server_host_key()
        self.host_key = f"{key.get_algorithm()} {key.get_fingerprint()}" if key else ""

    async def read(self) -> bytes:
        try:
            data = await self._process.stdout.read(1 << 16)
        except (asyncssh.Error, OSError):
            data = b""
        if not data and not self._heard:
            await self._explain()
        self._heard = True
        return data

    async def write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (asyncssh.Error, OSError) as error:
            if not self._heard:
                await self._explain()
            raise ConnectionResetError(getattr(error, "reason", str(error))) from None

    async def lend(self, serve: Serve) -> int:
        """A remote forward that ends in this process: nothing listens on this side."""

        lent = Lent(serve)

        async def answer(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
            with contextlib.suppress(asyncssh.Error, OSError):  # of a connection that broke: there will be another
                await lent(reader, writer)

        try:
            async with asyncio.timeout(START_S):
                listener = await self._connection.start_server(lambda *_: answer, "127.0.0.1", 0, encoding=None)
        except (asyncssh.ChannelListenError, TimeoutError):
            hint = "AllowTcpForwarding yes (and PermitListen) in its sshd_config"
            raise NotLent(f"{self._node}: its SSH server refuses to forward a port", hint=hint) from None
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(getattr(error, "reason", str(error))) from None
        self._lent.append((listener, lent))
        return listener.get_port()

    async def take_back(self) -> None:
        while self._lent:
            listener, lent = self._lent.pop()
            listener.close()
            lent.cut()
            with contextlib.suppress(asyncssh.Error, OSError):  # of a link that broke: that has ended it as well
                await listener.wait_closed()

    async def close(self) -> str:
        """End the agent's input, which ends it; then the connection. What it said, and by which signal it ended."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()
        if not self._connection.is_closed():
            await self._ended()
        self._drain.cancel()
        self._connection.close()
        try:
            async with asyncio.timeout(END_S):
                await self._connection.wait_closed()
        except TimeoutError:  # a link that was cut
            self._connection.abort()
        said = self._stderr.decode("utf-8", "replace")
        ended_by = self._process.exit_signal  # an exit code would be 255 both for this and for a lost link
        return f"{said}\nended by signal {ended_by[0]}" if ended_by else said

    async def _ended(self) -> None:
        """All that there is to hear has been heard, or it is not worth waiting for."""
        closed = asyncio.create_task(self._process.wait_closed())
        both: list[asyncio.Future[Any]] = [closed, self._drain]
        await asyncio.wait(both, timeout=END_S)
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)  # whatever it has to say, the streams say it

    async def _explain(self) -> None:
        """The stream ended before a word was said: NodeError with the reason, if the shell or the agent had one."""
        await self._ended()
        said = self._stderr.decode("utf-8", "replace").strip()
        status = self._process.exit_status
        if self._process.exit_signal or status is None:
            return  # the link was lost, or somebody killed it: it may be tried again
        raise stillborn(self._node, said, status)

    async def _keep_tail(self) -> None:
        with contextlib.suppress(asyncssh.Error, OSError):
            while data := await self._process.stderr.read(1 << 12):
                self._stderr += data
                del self._stderr[:-_TAIL_BYTES]


def stillborn(node: str, said: str, status: int) -> NodeError:
    """What it means that the command ended with this status, having said this on stderr and nothing on stdout."""
    if refused := sudo.refusal(said):
        return NodeError(f"{node}: {refused.message}", hint=refused.hint, kind=refused.kind)
    last = said.splitlines()[-1] if said else f"exit code {status}"
    for pattern, kind, text, hint in _STILLBORN:
        if re.search(pattern, said) or (kind == "no-python" and status in (126, 127)):
            return NodeError(f"{node}: {text}: {last}" if text else f"{node}: {last}", hint=hint, kind=kind)
    hint = "log in there by hand with ssh: does it print, ask or fail?"
    return NodeError(f"{node}: the agent did not start: {last}", hint=hint, kind="agent")
