"""A bare process: the floor every wrap is compared with. It is `created` once it has exec'd."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coldstart.agent import ports, spawn
from coldstart.agent.leader import Leader
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, Place, Prepared, Stamp, StartFailed, Unavailable

ADDRESS = "127.0.0.1"
OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True)
class Options:
    """env, args: for the program; `{nonce}`, `{address}` and `{port}` are filled in at every boot. Where `{port}` is
    used, every boot gets a fresh one; otherwise the port of `ready` must be free."""

    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()


class Runtime:
    packaging = "executable"
    ready_kinds = ("http", "tcp", "output", "exit")
    starts = ("warm", "page-cold", "image-absent")
    typical_boot_ns = 30_000_000
    examples = ({"runtime": "process", "image": "hello"},)

    def __init__(self, options: Options, context: Context) -> None:
        self._options = options
        self._run = context.run
        self._file = ""
        self._env: dict[str, str] = {}
        self._args: tuple[str, ...] = ()
        self._port = 0

    def check(self) -> dict[str, str]:
        if not spawn.can_watch():
            raise Unavailable(*spawn.CANNOT_WATCH)
        return {}

    def prepare(self, image: Image, ready: Ready, files: Mapping[str, str]) -> Prepared:
        file = files.get("program", "")
        if not file:
            raise Unavailable(f"{image.name}: no executable", "name a file")
        self._file = file
        self._env = {**image.env, **self._options.env}
        self._args = self._options.args or tuple(image.args)
        self._port = ready.port
        return Prepared(labels={}, files=(file,), image_bytes=os.stat(file).st_size)

    def place(self, nonce: str) -> Place:
        fresh = any("{port}" in text for text in (*self._args, *self._env.values()))
        port = ports.free(ADDRESS) if fresh else self._port
        if port and not fresh and not ports.usable(ADDRESS, port):
            raise StartFailed(
                f"port {port} of {ADDRESS} is in use: end what listens there, or give the program {{port}}"
            )
        return Place(f"coldstart-{self._run}-{nonce}", ADDRESS, port, nonce)

    def start(self, place: Place, stamp: Stamp) -> Process:
        values = {"nonce": place.nonce, "address": place.address, "port": str(place.port)}
        argv = [self._file, *(_filled(text, values) for text in self._args)]
        env = {name: _filled(text, values) for name, text in self._env.items()}
        env.update({spawn.MARK: self._run, "PATH": os.environ.get("PATH", os.defpath)})
        output = os.memfd_create("output", os.MFD_CLOEXEC)
        try:
            pid = spawn.spawn(argv, env, output)
            stamp("created")
            stamp("api_return")
            return Process(Leader(pid), place.port, output)
        except OSError as error:
            os.close(output)
            raise StartFailed(f"{self._file}: {error.strerror}") from None

    def stop(self, handle: Process) -> None:
        handle.end()

    def close(self) -> None:
        pass

    def clean(self, run: str) -> list[str]:
        found = spawn.marked(spawn.MARK, run, but=self._run)
        for pid in found:
            spawn.kill(pid, signal.SIGKILL)
        return [f"process {pid}" for pid in found]


class Process:
    """A started process."""

    def __init__(self, leader: Leader, port: int, output: int) -> None:
        self._leader = leader
        self._port = port
        self._output = output
        self.exited = leader.exited

    def processes(self) -> Sequence[int]:
        return [self._leader.pid]

    def interfaces(self) -> Sequence[str]:
        return []

    def exit_code(self) -> int | None:
        return self._leader.exit_code()

    def output(self) -> str:
        size = os.fstat(self._output).st_size
        return os.pread(self._output, OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode("utf-8", "replace")

    def remains(self) -> list[str]:
        return [] if ports.usable(ADDRESS, self._port) else [f"port {self._port}"]

    def end(self) -> None:
        self._leader.end()
        os.close(self._output)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Not str.format: a program's arguments may hold braces of their own."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
