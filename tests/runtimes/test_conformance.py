"""The exam of every runtime. A new file in `coldstart/agent/runtimes/` takes it without being named here.

What a runtime cannot do on this machine shows as skipped, with the runtime's own reason. Runtimes that need more than
this process (an engine, root) are `live`; those in FAST are not.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import json
import os
import platform
import secrets
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lending import Controller, install

from coldstart import images
from coldstart.agent import pagecache, resources, runtimes
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.cache import Cache
from coldstart.agent.oneboot import Prey
from coldstart.agent.records import MARKS, STARTS, Order, Ready
from coldstart.agent.runtimes import Context, StopFailed, Unavailable
from coldstart.agent.supply import Files, repository
from coldstart.source import Blob

FAST = ("fake", "process")
NAMES = [pytest.param(name, marks=() if name in FAST else pytest.mark.live) for name in runtimes.names()]
JSON_TYPES = {"str", "int", "bool", "tuple[str, ...]", "tuple[int, ...]", "Mapping[str, str]"}
TIMEOUT_NS = 10_000_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One example of a runtime."""

    name: str
    example: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        return {key: value for key, value in self.example.items() if key not in ("runtime", "image", "codes")}

    def __str__(self) -> str:
        return "-".join([self.name, *(str(value) for key, value in self.options.items() if key == "arch")])


CASES = [
    pytest.param(case, marks=() if case.name in FAST else pytest.mark.live, id=str(case))
    for name in runtimes.names()
    for case in (Case(name, example) for example in runtimes.load(name).Runtime.examples)
]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=CASES)
def case(request):
    return request.param


class Bench:
    """One runtime with the reference workload, ready to boot; `fault` as the workload or the simulator knows it."""

    def __init__(self, case: Case, folder: Path, *, run: str, fault: str = "") -> None:
        self.case = case
        self.module = runtimes.load(case.name)
        self.kind = self.module.Runtime
        self.run = run
        arch = case.options.get("arch", platform.machine())
        reference = case.example["image"]
        self.image = images.resolve(reference, packaging=self.kind.packaging, arch=arch, base=Path())
        options = {**self.image.options, **case.options, **self._fault(fault)}
        self.runtime = self.kind(self.module.Options(**options), Context(run, str(folder)))
        self.folder = folder
        self._read, self._write = os.pipe()
        self.loop = BootLoop(self._read)

    def prepared(self, *, timeout_ns: int = TIMEOUT_NS, **ready) -> Prey:
        image = self.image
        http = {"port": 8080, "body": "Serverless Unikernels!", "nonce": image.nonce}
        wanted = Ready(timeout_ns=timeout_ns, **(ready or http))
        install(self.runtime, image, self.folder)
        prepared = self.runtime.prepare(image.image, wanted, {part: str(path) for part, path in image.paths.items()})
        pagecache.flush(prepared.files)
        return Prey(self.runtime, wanted, prepared)

    def fetching(self, controller: Controller) -> Prey:
        """Prepared as on a node: what it lacks comes from this controller, in the middle of boots."""
        image, cache = self.image, Cache(str(self.folder))
        files = {part: Blob(f"sha256:{image.image.files[part]}", path.stat().st_size, "x", path)
                 for part, path in image.paths.items()}  # fmt: skip
        controller.registry.offer([*files.values(), *(image.source.blobs() if image.source else ())])
        own = getattr(self.runtime, "supply", None)
        if not own:
            for file in files.values():
                cache.take(file.digest.removeprefix("sha256:"), file.read())
        prey = self.prepared()
        held = {part: cache.file(digest) for part, digest in image.image.files.items()}
        prepared = self.runtime.prepare(image.image, prey.ready, held)
        supply = own(image.image, None, controller.port) if own else Files(image.image, cache, controller.port)
        assert supply.objection() == ""
        return dataclasses.replace(prey, prepared=prepared, supply=supply)

    def boots(self, prey: Prey, count: int = 1, start: str = "warm"):
        found = []
        self.loop.run([Order(0, index, "t", start) for index in range(count)], {"t": prey}, found.append)
        return found

    def close(self) -> None:
        self.runtime.clean(self.run)
        self.runtime.close()
        self.loop.close()
        os.close(self._read)
        os.close(self._write)

    def seen(self, code: int) -> int:
        """The exit code by which the workload's shows here."""
        return int(self.case.example.get("codes", {}).get(code, code))

    def _fault(self, fault: str) -> dict[str, object]:
        if not fault:
            return {}
        known = {field.name for field in dataclasses.fields(self.module.Options)}
        return {"env": {"COLDSTART_FAULT": FAULTS[fault]}} if "env" in known else {"fault": fault}


# The simulator's words, and the workload's; `ends` is no fault for a one-shot job.
FAULTS = {"exits": "exit:3", "never-answers": "mute", "stale": "stale", "ends": "exit:0"}


@pytest.fixture
def controller():
    one = Controller()
    yield one
    one.close()


@pytest.fixture
def bench(case, tmp_path, node):
    """Makes benches and leaves nothing of theirs; skips where the runtime is not to be had."""
    made = []

    def make(**options) -> Bench:
        one = Bench(case, tmp_path, run=options.pop("run", f"test-{secrets.token_hex(4)}"), **options)
        made.append(one)
        try:
            one.runtime.check()
        except Unavailable as error:
            pytest.skip(f"{case}: {error.reason} ({error.hint})")
        return one

    yield make
    for one in made:
        one.close()


# -- what the file says


def test_options_are_plain_data(name):
    """A frozen dataclass of JSON types with defaults, documented: playbooks are validated and docs written from it."""
    options = runtimes.load(name).Options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen
    assert options.__doc__
    assert not options.__doc__.startswith("Options(")
    for field in dataclasses.fields(options):
        assert field.type in JSON_TYPES, field
        assert getattr(options(), field.name) in field.metadata.get("choices", [getattr(options(), field.name)])
    json.dumps(dataclasses.asdict(options()))


def test_it_declares_what_it_can(name):
    """Plan time knows what to refuse."""
    kind = runtimes.load(name).Runtime
    assert kind.packaging in ("executable", "docker-archive", "machine", "none")
    assert set(kind.ready_kinds) <= {"http", "tcp", "output", "exit"}
    assert set(kind.starts) <= set(STARTS)
    assert kind.typical_boot_ns > 0
    assert {example["runtime"] for example in kind.examples} == {name}


def test_it_has_the_whole_interface(name):
    """By shape: every method of the protocol, with its parameters."""
    kind = runtimes.load(name).Runtime
    for method in ("check", "prepare", "place", "start", "stop", "clean"):
        ours = list(inspect.signature(getattr(kind, method)).parameters)
        assert ours == list(inspect.signature(getattr(runtimes.Runtime, method)).parameters), method


def test_it_never_reads_a_clock_and_never_prints(name):
    """There is one stopwatch, and stdout is the protocol's."""
    own = Path(runtimes.load(name).__file__)
    for path in [own, *(own.parent.parent / name).glob("*.py")]:  # and the folder that bears its name, if there is one
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not imported & {"time", "datetime", "timeit"}
        assert "print" not in called


# -- what it does


def test_facts_are_texts(bench):
    """They go into the store and onto the screen."""
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in bench().runtime.check().items())


def test_a_boot(bench):
    """Every mark in its order, an outcome, and nothing left when it is `reclaimed`."""
    one = bench()
    for boot in one.boots(one.prepared(), 3):
        assert boot.outcome == "ok"
        assert not [flag for flag in boot.flags if not flag.startswith("disturbed:")]  # that is the machine's doing
        marks = boot.marks_ns
        assert set(marks) <= set(MARKS)
        assert 0 <= marks["created"] <= marks["api_return"] <= marks["stop"]
        assert 0 <= marks.get("tcp", 0) <= marks["ready"] <= marks["stop"] <= marks["gone"] <= marks["reclaimed"]
        assert all(value > 0 for value in boot.memory_bytes.values())


def test_every_boot_is_somewhere_new(bench):
    """Name, nonce, and address or port: a leftover can never stand where the next one is looked for."""
    one = bench()
    prey = one.prepared()
    places = []
    for number in range(3):
        places.append(one.runtime.place(f"nonce{number}"))
        (boot,) = one.boots(prey)
        assert boot.outcome == "ok"
    assert len({place.name for place in places}) == 3
    if prey.prepared.labels.get("time") != "virtual":
        assert len({(place.address, place.port) for place in places}) == 3


@pytest.mark.parametrize(
    ("fault", "outcome"), [("exits", "error:exited"), ("never-answers", "timeout"), ("stale", "timeout")]
)
def test_a_failure_is_a_row_with_its_reason(bench, fault, outcome):
    """Never ready, always explained, nothing left behind, and the next boot is a good one."""
    one = bench(fault=fault)
    (boot,) = one.boots(one.prepared(timeout_ns=max(200_000_000, 3 * one.kind.typical_boot_ns)))
    assert boot.outcome == outcome
    assert boot.detail
    assert "ready" not in boot.marks_ns
    assert "reclaimed" in boot.marks_ns
    good = bench()
    assert good.boots(good.prepared())[0].outcome == "ok"


@pytest.mark.parametrize(
    ("kind", "ready", "fault"),
    [
        ("tcp", {"port": 8080}, ""),
        ("output", {"pattern": "^COLDSTART ready"}, ""),
        ("exit", {"code": 0}, "ends"),
        ("exit", {"code": 3}, "exits"),
    ],
)
def test_every_declared_kind_of_ready(bench, kind, ready, fault):
    """What a playbook may ask for works; what a runtime does not declare is refused at plan time."""
    if kind not in bench().kind.ready_kinds:
        return
    one = bench(fault=fault)
    if "code" in ready:
        ready = {"code": one.seen(ready["code"])}
    (boot,) = one.boots(one.prepared(kind=kind, **ready))
    assert (boot.outcome, boot.detail) == ("ok", "")
    assert boot.marks_ns["created"] <= boot.marks_ns["ready"] <= boot.marks_ns["stop"]


def test_the_wrong_exit_code_is_an_error(bench):
    """With the code it ended with."""
    if "exit" not in bench().kind.ready_kinds:
        return
    one = bench(fault="exits")
    (boot,) = one.boots(one.prepared(kind="exit", code=one.seen(3) + 1))
    assert boot.outcome == "error:exited"
    assert boot.detail.startswith(f"ended with code {one.seen(3)}")


def test_page_cold_is_cold(bench):
    """Nothing of the image is in the page cache when the boot begins; or the runtime says why it cannot be."""
    one = bench()
    prey = one.prepared()
    if "page-cold" not in one.kind.starts or prey.prepared.cold_unavailable:
        pytest.skip(prey.prepared.cold_unavailable or "not a start kind of this runtime")
    cold, warm = one.boots(prey, start="page-cold")[0], one.boots(prey)[0]
    assert (cold.outcome, cold.cache_bytes["start"]) == ("ok", 0)
    assert warm.cache_bytes["start"] == warm.cache_bytes["files"]


def test_an_absent_image_is_fetched_in_the_boot(bench, controller):
    """All of it, every time, under the boot's own name; and it is there again for a start that needs it."""
    one = bench()
    if "image-absent" not in one.kind.starts:
        assert one.kind.packaging == "none"
        return
    prey = one.fetching(controller)
    boots = one.boots(prey, 2, start="image-absent")
    assert [(boot.outcome, boot.detail) for boot in boots] == [("ok", "")] * 2
    sent = [controller.registry.sent_bytes[repository(0, boot.index)] for boot in boots]
    content = one.image.size_bytes - (one.image.source.manifest.size_bytes if one.image.source else 0)
    assert all(each >= content for each in sent)  # an engine may remember a manifest
    for boot in boots:
        assert 0 < boot.marks_ns["pulled"] < boot.marks_ns["created"]
    (warm,) = one.boots(prey)
    assert (warm.outcome, "pulled" in warm.marks_ns) == ("ok", False)
    assert warm.cache_bytes["start"] == warm.cache_bytes["files"] > 0


@contextlib.contextmanager
def started(one: Bench):
    """An instance nobody stops, as a killed agent leaves it: what it holds."""
    one.prepared()
    place = one.runtime.place("orphan")
    if hasattr(one.runtime, "clock"):
        one.runtime.probe(place)
    handle = one.runtime.start(place, lambda mark: None)
    yield resources.footprint(handle.processes(), handle.interfaces())
    with contextlib.suppress(StopFailed):  # it is gone by now; this closes what the handle holds
        one.runtime.stop(handle)


def gone(held: resources.Footprint) -> bool:
    """Within a few seconds: an engine removes a shim a moment after its container."""
    deadline = time.monotonic() + 5
    while resources.remains(held) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return not resources.remains(held)


def test_clean_removes_what_bears_our_mark_and_nothing_else(bench):
    """Another run's instance stays; its own run's goes; and going over it again finds nothing."""
    if bench().kind.packaging == "none":  # nothing of it exists outside this process
        assert bench().runtime.clean("") == []
        return
    mine, other = bench(), bench()
    with started(other) as kept, started(mine) as held:
        assert mine.runtime.clean(mine.run)
        assert gone(held)
        assert len(resources.remains(kept)) >= len(kept.processes) > 0
        assert mine.runtime.clean(mine.run) == []
        assert other.runtime.clean(other.run)
        assert gone(kept)
