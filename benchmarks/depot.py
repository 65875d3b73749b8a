"""What is delivered to nodes, the nodes, and who delivers: the push benchmark's parts.

The nodes are of the lab, each with an engine of its own; so is the desk, whose engine is the controller's: peers save
images out of it. All of it goes with the lab.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks import booting
from benchmarks.booting import Cancel, Failed
from benchmarks.result import NotRun
from benchmarks.traffic import Count, Links, rate
from coldstart import archive, images, sources
from coldstart.archive import ContainerImage, File

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # the lab lives there

from lab.fleet import Lab, LabError  # noqa: E402
from lab.network import CommandFailed  # noqa: E402
from lab.node import Node  # noqa: E402
from lab.shapes import Shape  # noqa: E402

ARCH = platform.machine()
CIPHER = "aes128-gcm@openssh.com"  # what coldstart asks for first
LAYERS, LAYER_BYTES = 5, 8_400_000
NARROW_MBIT = 40
OPEN = ("n1", "n2", "n3")
CLOSED, NARROW, DESK = "closed", "narrow", "desk"
SHAPES = (
    *(Shape(name, engine=True) for name in OPEN),
    Shape(CLOSED, engine=True, sshd=("AllowTcpForwarding no",)),
    Shape(NARROW, engine=True, mbit=NARROW_MBIT),
    Shape(DESK, engine=True),
)
CACHE = "/root/.cache/coldstart"
ARRIVED = "/root/arrived"  # where peers copy to
COMMANDS = ("bash", "docker", "dockerd", "ssh", "scp")
LIMIT_S = 300.0
GRACE_S = 10.0
POLL_S = 0.002
_SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Leg:
    """One delivery. seconds: from the command's start to its end; links: what passed; bytes_per_s: while it came, see
    `traffic.rate`; pushed: what coldstart says of it, by node."""

    seconds: float
    links: Count
    bytes_per_s: float
    pushed: Sequence[Mapping[str, Any]] = ()


@dataclass
class Depot:
    """stock: ids of the images that stay in each node's engine."""

    lab: Lab
    folder: Path
    cancel: Cancel
    stock: dict[str, set[str]] = field(default_factory=dict)

    # -- who delivers

    def push(self, names: Sequence[str], image: str, *, runtime: str = "docker", cache: str = "") -> Leg:
        """The command itself. cache: where an earlier one has worked; empty: it knows nothing."""
        argv = self.push_command(names, image, runtime)
        leg, (said,) = self._leg(names, [argv], self.environ(cache or self.new_cache()))
        return Leg(leg.seconds, leg.links, leg.bytes_per_s, json.loads(said)["pushes"])

    def push_command(self, names: Sequence[str], image: str, runtime: str) -> list[str]:
        command = str(Path(sys.executable).with_name("coldstart"))
        told = ["--image", image, "--port", "8080", "--runtime", runtime, "--format", "json"]
        return [command, "push", str(self.lab.inventory), "--limit", ",".join(names), *told]

    def environ(self, cache: str) -> dict[str, str]:
        """Of whoever works at the desk."""
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.lab.nodes[DESK].path('run/docker.sock')}",
            "COLDSTART_STORE": str(self.folder / "store.db"),
            "XDG_CACHE_HOME": cache,
            "XDG_STATE_HOME": str(self.folder / "state"),
        }

    def new_cache(self) -> str:
        """Of one push and what is to know of it; the ones before are of no use any more."""
        for path in self.folder.glob("cache-*"):
            shutil.rmtree(path)
        return tempfile.mkdtemp(prefix="cache-", dir=self.folder)

    def shell(self, names: Sequence[str], command: str) -> Leg:
        """One shell for each node, all at once; `{ssh}` and `{scp}` are told all they need, `{node}` is who."""
        common = f"-F {self.lab.ssh_config} -c {CIPHER}"
        words = {"ssh": f"ssh {common}", "scp": f"scp -q {common}"}
        argvs = [["bash", "-o", "pipefail", "-c", command.format(node=name, **words)] for name in names]
        return self._leg(names, argvs, self.environ(""))[0]

    def links(self, names: Sequence[str]) -> Links:
        return Links([self.lab.nodes[name].path("proc/1/net/dev") for name in names])

    def _leg(self, names: Sequence[str], argvs: Sequence[list[str]], environ: dict[str, str]) -> tuple[Leg, list[str]]:
        os.sync()  # what was written before is not this one's burden
        with self.links(names) as links:
            before, began_s = links.count(), time.monotonic()
            with started(argvs, environ) as tasks:
                wait(lambda: all(task.ended() for task in tasks), self.cancel)
                seconds = time.monotonic() - began_s
                said = [task.output() for task in tasks]
            passed = links.count() - before
        return Leg(seconds, passed, rate(links.samples)), said

    # -- what nodes have

    def load_at_desk(self, path: Path) -> None:
        """Into the controller's engine."""
        self._call(["docker", "load", "--quiet", "--input", str(path)])

    def take_stock(self) -> None:
        """What is in the engines now stays."""
        self.stock = {name: ids(node) for name, node in self.lab.nodes.items()}

    def brought(self, name: str) -> list[str]:
        """Ids of the images that have come to a node since."""
        return sorted(ids(self.lab.nodes[name]) - self.stock.get(name, set()))

    def clear(self, names: Sequence[str]) -> None:
        """Whatever was delivered."""
        for node in (self.lab.nodes[name] for name in names):
            if more := self.brought(node.name):
                node.run(["docker", "image", "rm", "--force", *more])
            node.run(["rm", "-rf", CACHE, ARRIVED])

    def _call(self, argv: list[str]) -> None:
        with started([argv], self.environ("")) as (task,):
            wait(task.ended, self.cancel)
            task.output()


@contextmanager
def opened(cancel: Cancel) -> Iterator[Depot]:
    """NotRun if it cannot be had; nothing is left of it."""
    missing = [name for name in COMMANDS if not shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SBIN)]
    if missing:
        raise NotRun(f"needs {', '.join(missing)}")
    with (
        booting.alone(f"bench-{secrets.token_hex(4)}"),
        tempfile.TemporaryDirectory(prefix="coldstart-bench-", dir="/var/tmp") as scratch,
    ):
        try:
            with Lab(Path(scratch, "lab"), SHAPES) as lab:
                yield Depot(lab, Path(scratch), cancel)
        except (LabError, CommandFailed, subprocess.CalledProcessError) as error:
            cancel.check()  # Ctrl-C reaches the lab's own commands too
            raise NotRun(str(error)) from None


def ids(node: Node) -> set[str]:
    """Of all images in its engine."""
    return {image["Id"] for image in node.engine.get("/images/json") or ()}


def parts(node: Node) -> int:
    """Bytes that have come of what is not complete."""
    try:
        return sum(file.stat().st_size for file in node.path(CACHE).glob("*.part"))
    except FileNotFoundError:  # complete by now
        return 0


# -- commands


class Task:
    """A command in a session of its own. out, err: files that what it says goes to."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], out: IO[bytes], err: IO[bytes]) -> None:
        self._name = " ".join(argv)[-200:]
        self._out, self._err = out, err
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            argv, env=environ, stdin=null, stdout=out, stderr=err, cwd=ROOT, start_new_session=True
        )

    def ended(self) -> bool:
        return self._process.poll() is not None

    def output(self) -> str:
        """Failed if it did."""
        if self._process.returncode:
            last = _text(self._err).strip().splitlines()[-1:] or [f"exit {self._process.returncode}"]
            raise Failed(f"{self._name}: {last[0][-300:]}")
        return _text(self._out)

    def close(self) -> None:
        """It and what it started are over."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended():
                return
            os.killpg(self._process.pid, number)
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextmanager
def started(argvs: Sequence[Sequence[str]], environ: Mapping[str, str]) -> Iterator[list[Task]]:
    with ExitStack() as stack:
        tasks: list[Task] = []
        for argv in argvs:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            tasks.append(Task(argv, environ, out, err))
            stack.callback(tasks[-1].close)
        yield tasks


def wait(condition: Callable[[], Any], cancel: Cancel, limit_s: float = LIMIT_S) -> None:
    """Until it holds; Failed if it never does."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        select.select([cancel.fd], [], [], POLL_S)
        cancel.check()
        if time.monotonic() > deadline_s:
            raise Failed(f"no end within {limit_s:g} s")


# -- what is delivered: noise, made anew, so that nobody has it and nothing can be compressed


@dataclass(frozen=True)
class Container:
    """An image in a file."""

    path: Path
    tag: str

    def partial(self, to: Path) -> Path:
        """An archive of its uppermost layer alone, that names them all: an engine that has the others takes it."""
        source = sources.read(self.path, ARCH)
        names = [f"{blob.digest.removeprefix('sha256:')}.tar" for blob in source.layers]
        config = f"{source.config.digest.removeprefix('sha256:')}.json"
        manifest = json.dumps([{"Config": config, "RepoTags": [self.tag], "Layers": names}]).encode()
        top = b"".join(source.layers[-1].read())
        files = (File("manifest.json", manifest), File(config, source.config.data), File(names[-1], top))
        to.write_bytes(archive.tar(files))
        return to


def container(path: Path, layers: Sequence[bytes]) -> Container:
    files = tuple((File(f"layer{number}", data),) for number, data in enumerate(layers))
    image = ContainerImage("theirs.example/app", ARCH, files, ("/none",), ports=(8080,))
    path.write_bytes(archive.pack(image))
    return Container(path, archive.tag(image))


def program(path: Path, size: int) -> Path:
    """Of so many bytes in all: the reference server with a long tail."""
    resolved = images.resolve("hello", packaging="executable", arch=ARCH, base=Path())
    head = next(iter(resolved.paths.values())).read_bytes()
    path.write_bytes(head + os.urandom(size - len(head)))
    return path
