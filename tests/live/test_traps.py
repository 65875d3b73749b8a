"""What lies, and must not be believed: the agent's own boot loop with a real engine (DESIGN section 6)."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Coldstart, Machine, leftovers
from lending import install

from coldstart import bundle, images, local
from coldstart.agent import runtimes
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Prey
from coldstart.agent.records import Boot, Order, Ready, to_json
from coldstart.agent.runtimes import Context, Place, Stamp, Unavailable
from coldstart.catalogue import Catalogue
from coldstart.link import Conversation
from coldstart.model import Node, Target
from coldstart.push import Pusher, Shared

pytestmark = pytest.mark.live

HELD = "held: {runtime: process, image: hello}"
BODY = "Serverless Unikernels!"
IGNORED_BY_OTHERS = 1 << 12 | 3 << 31  # SIGPIPE by the workload itself; 32 and 33, the C library's own, by posix_spawn
HOPELESS = ("deaf", "mute", "stale")
PLENTY_NS = 10_000_000_000
ENOUGH_NS = 800_000_000  # a container of this engine is there in half of it


class Bench:
    """Boots the reference workload, with a fault or without."""

    def __init__(self, folder: Path) -> None:
        self.run = f"traps-{secrets.token_hex(4)}"
        self._context = Context(self.run, str(folder))
        self._folder = folder
        self._runtimes: list[Any] = []
        self._cancel = os.pipe()
        self._loop = BootLoop(self._cancel[0])
        self._loop.arm()

    def prey(self, runtime: str, *, nonce: bool = True, fault: str = "", **options: Any) -> Prey:
        """A prepared target."""
        module = runtimes.load(runtime)
        env = {"COLDSTART_FAULT": fault} if fault else {}
        made = module.Runtime(module.Options(env=env, **options), self._context)
        self._runtimes.append(made)
        made.check()
        packaging = made.packaging
        image = images.resolve("hello", packaging=packaging, arch=platform.machine(), base=Path())
        ready = Ready(port=8080, body=BODY, nonce=nonce, timeout_ns=ENOUGH_NS if fault in HOPELESS else PLENTY_NS)
        install(made, image, self._folder)
        return Prey(
            made, ready, made.prepare(image.image, ready, {part: str(path) for part, path in image.paths.items()})
        )

    def boot(self, prey: Prey) -> Boot:
        return self._loop.boot(self._loop.stage(Order(0, 0, "target"), prey))

    def close(self) -> None:
        for made in self._runtimes:
            made.clean(self.run)
            made.close()
        self._loop.close()
        for fd in self._cancel:
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path, node: Machine) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()
    assert not leftovers(made.run)


class Elsewhere:
    """A runtime whose instances are looked for at another one's address: who answers there is a leftover."""

    def __init__(self, inner: Any, address: str, port: int) -> None:
        self._inner = inner
        self._other = {"address": address, "port": port}
        self._own: dict[str, Place] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def place(self, nonce: str) -> Place:
        self._own[nonce] = self._inner.place(nonce)
        return dataclasses.replace(self._own[nonce], **self._other)

    def start(self, place: Place, stamp: Stamp) -> Any:
        return self._inner.start(self._own[place.nonce], stamp)


# -- proxies


@pytest.mark.parametrize("fault", ["deaf", "mute"])
def test_docker_proxy_lies(bench: Bench, engine: str, fault: str) -> None:
    """docker-proxy accepts before anything listens: that is neither `tcp` nor `ready`."""
    boot = bench.boot(bench.prey("docker", net="proxied", fault=fault))
    assert boot.outcome == "timeout"
    assert not {"tcp", "ready"} & set(boot.marks_ns)
    assert "reclaimed" in boot.marks_ns


def test_through_a_proxy_with_a_nonce(bench: Bench, engine: str) -> None:
    """This boot's own nonce can have come from nobody else: it counts, labelled, and without `tcp`."""
    prey = bench.prey("docker", net="proxied")
    assert prey.prepared.labels["net"] == "proxied"
    boot = bench.boot(prey)
    assert boot.outcome == "ok", boot
    assert "ready" in boot.marks_ns
    assert "tcp" not in boot.marks_ns


def test_through_a_proxy_without_a_nonce(bench: Bench, engine: str) -> None:
    """Then nothing could be believed: refused before anything is booted, with what would help."""
    with pytest.raises(Unavailable, match="nonce") as refused:
        bench.prey("docker", net="proxied", nonce=False)
    assert "X-Coldstart-Nonce" in refused.value.hint


# -- answers


@pytest.mark.parametrize("fault", ["mute", "stale"])
def test_wrong_answers(bench: Bench, engine: str, fault: str) -> None:
    """To accept is not to answer; and to answer with another boot's nonce is to be another boot."""
    boot = bench.boot(bench.prey("docker", fault=fault))
    assert boot.outcome == "timeout"
    assert "ready" not in boot.marks_ns
    assert "tcp" in boot.marks_ns


@pytest.mark.parametrize("runtime", ["docker", "process"])
def test_a_leftover_answers(bench: Bench, engine: str, runtime: str) -> None:
    """An instance of an earlier boot, still there where this boot is looked for, answers at once: never counted."""
    prey = bench.prey(runtime)
    place = prey.runtime.place("earlier")
    handle = prey.runtime.start(place, lambda mark: None)
    deaf = bench.prey(runtime, fault="deaf")
    boot = bench.boot(dataclasses.replace(deaf, runtime=Elsewhere(deaf.runtime, place.address, place.port)))
    prey.runtime.stop(handle)
    assert boot.outcome == "timeout"
    assert boot.marks_ns["tcp"] < ENOUGH_NS
    assert "ready" not in boot.marks_ns


# -- time


def test_early_probes_are_answered_at_once(bench: Bench, engine: str) -> None:
    """Not by the next ARP retry (1.0 s, 2.0 s): the answer is there when the start call returns, or soon after."""
    prey = bench.prey("docker")
    assert prey.prepared.labels == {"net": "own", "probe": "early"}
    for boot in [bench.boot(prey) for _ in range(5)]:
        assert boot.outcome == "ok", boot
        assert boot.marks_ns["ready"] <= boot.marks_ns["api_return"] + 100_000_000
        assert boot.resolution_ns is not None
        assert boot.resolution_ns < 50_000_000


@pytest.mark.parametrize("runtime", ["docker", "process"])
def test_a_slow_workload_is_seen_slow(bench: Bench, engine: str, runtime: str) -> None:
    """300 ms asleep before it listens are 300 ms in `ready`."""
    boot = bench.boot(bench.prey(runtime, fault="delay:300"))
    assert boot.outcome == "ok", boot
    assert boot.marks_ns["ready"] - boot.marks_ns["created"] >= 300_000_000


def test_without_the_right_to_add_neighbours(coldstart: Coldstart, engine: str) -> None:
    """An agent without CAP_NET_ADMIN waits for the start call to return, says so, and is right all the same."""
    drop = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin"
    inventory = inventory_with(coldstart, f'exec {drop} "$PYTHON" "$@"')
    done = coldstart.sweep(inventory, "--playbook", coldstart.playbook("it: {runtime: docker, image: hello}"))
    assert done.returncode == 0, done.stderr
    assert "here: it: without CAP_NET_ADMIN" in done.stderr
    for record in coldstart.records():
        assert record["labels"] == {"net": "own", "probe": "after-api"}
        assert record["outcome"] == "ok"
        assert record["marks_ns"]["ready"] > record["marks_ns"]["api_return"]


# -- what a started process gets from us


def test_nothing_is_inherited(coldstart: Coldstart, engine: str) -> None:
    """Only its three streams, no signal blocked or ignored, a session of its own, the usual scheduling; even if whoever
    started the agent was careless with descriptors."""
    inventory = inventory_with(coldstart, 'exec 9</etc/hostname\nexec "$PYTHON" "$@"')
    playbook = coldstart.playbook(HELD, "boots: 1, gap: 0s, hold: 60s")
    sweep = coldstart.start(inventory, "--playbook", playbook)
    (pid,) = sweep.instance()
    check_inherits_nothing(pid)
    assert os.getsid(pid) == pid
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130


def test_a_container_inherits_nothing(bench: Bench, engine: str) -> None:
    """Likewise."""
    prey = bench.prey("docker")
    handle = prey.runtime.start(prey.runtime.place("n1"), lambda mark: None)
    try:
        check_inherits_nothing(handle.processes()[0])
    finally:
        prey.runtime.stop(handle)


def check_inherits_nothing(pid: int) -> None:
    status = status_of(pid)
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~IGNORED_BY_OTHERS == 0
    opened = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    own = ("socket:", "anon_inode:[eventpoll]")  # the workload's
    assert {fd for fd, what in opened.items() if not what.startswith(own)} == {0, 1, 2}


def inventory_with(coldstart: Coldstart, script: str) -> str:
    """An inventory whose node runs its agent through a shell script; $PYTHON is the interpreter."""
    wrapper = coldstart.folder / "python"
    wrapper.write_text(f"#!/bin/sh\nPYTHON='{sys.executable}'\n{script}\n")
    wrapper.chmod(0o755)
    variables = f"{{ansible_connection: local, ansible_python_interpreter: {wrapper}}}"
    return coldstart.write("other.yaml", f"all: {{hosts: {{here: {variables}}}}}\n")


def status_of(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# -- the agent itself


def test_nothing_is_imported_while_measuring(
    node: Machine, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between ARM and DONE the agent imports nothing: a lazy import once cost the first boot 100 ms."""
    monkeypatch.setenv("COLDSTART_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done, boots = asyncio.run(conversation())
    assert done["imported"] == []
    assert [boot["outcome"] for boot in boots] == ["ok"] * 4


async def conversation() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the agent says at the end of a loop over both runtimes, and the boots."""
    here = Node("here", vars={"ansible_connection": "local"})
    boots = []
    async with Conversation("here", await local.connect(here, bundle.build())) as talk:
        await talk.ask("hello", "hello", run=f"traps-{secrets.token_hex(4)}", settings={})
        for name in ("process", "docker"):
            await prepare(talk, name)
        await talk.ask("arm", "armed")
        orders = [to_json(Order(index % 2, index // 2, ("process", "docker")[index % 2])) for index in range(4)]
        await talk.ask("stage", "staged", orders=orders)
        await talk.tell("start", at_ns=0)
        async for message in talk.until("done"):
            boots.append(message.get("boot"))
    return message, boots[:-1]


async def prepare(talk: Conversation, runtime: str) -> None:
    target = Target(runtime, runtime, {"": "hello"}, Ready(port=8080, body=BODY, nonce=True))
    image = await Catalogue().image(target, platform.machine(), Node("here"))
    await Pusher("here", talk, lambda event: None, Shared(None, Catalogue().archive), {}).push(target, image)
    fields = {"runtime": runtime, "options": {}, "image": to_json(image.image), "ready": to_json(target.ready)}
    await talk.ask("prepare", "prepared", target=runtime, previous=None, port=0, **fields)
