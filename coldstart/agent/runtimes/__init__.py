"""What starts images. One file here = one runtime; its file name is the name playbooks use, nothing else registers it.

A runtime file defines `Options` (a frozen dataclass of JSON types, units in the names: `memory_bytes`, `ready_ns`) and
`Runtime` (the class below, by shape; nothing to inherit). It never reads a clock and never prints: `bootloop.py` owns
the only stopwatch. It may block: `start` runs in a thread of its own while the probe already runs.
`tests/runtimes/` holds every file here to the same exam.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Protocol

from coldstart.agent.records import Image, Ready


class Unavailable(Exception):
    """This runtime, or what a target asks of it, is not to be had on this node. hint: how that could change."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class StartFailed(Exception):
    """The runtime could not place, create or start an instance; nothing of it is left."""


class StopFailed(Exception):
    """The runtime could not end an instance, or could not tell."""


@dataclass(frozen=True)
class Context:
    """What a runtime may know of its node. run: the mark everything it makes must bear; cache: a folder for files
    that may stay; settings: the node's `coldstart_*` variables; shared: what the targets of a run have in common (a
    network), by a name of the runtime's."""

    run: str
    cache: str
    settings: Mapping[str, str] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """labels: what changes the figure (`net`, `probe`, ...); files: whose page cache makes a start warm or cold;
    image_bytes: unpacked, on this node's disk; warnings: for the user, once; cold_unavailable: why this image cannot
    be started page-cold here, if it cannot."""

    labels: Mapping[str, str]
    files: tuple[str, ...] = ()
    image_bytes: int = 0
    warnings: tuple[str, ...] = ()
    cold_unavailable: str = ""


@dataclass(frozen=True)
class Place:
    """Where the next instance will be, fixed before the clock starts. early: may be probed before `start` returns.
    gate: the folder that lists the ports of the instance's bridge, '' if there is none: spares useless probes."""

    name: str
    address: str
    port: int
    nonce: str
    early: bool = True
    gate: str = ""


class Handle(Protocol):
    """A started instance. exited: readable (as poll sees it) once the instance has ended."""

    exited: int

    def processes(self) -> Sequence[int]:
        """Every process that exists for this instance alone: the workload's, and helpers (shim, VMM, proxy)."""

    def interfaces(self) -> Sequence[str]:
        """The host's network interfaces that exist for this instance alone."""

    def exit_code(self) -> int | None:
        """How it ended; None while it runs or when nobody can know."""

    def output(self) -> str:
        """The last of what it wrote, up to 1 MiB; for `ready: output` and for messages."""

    def remains(self) -> list[str]:
        """What of it is not given back yet, beyond processes, control groups and interfaces: a port, say."""

    # Optional: console: int, readable when the instance has said something, -1 if it will not; hear() -> bool takes
    # that in, and tells whether the guest itself (not its firmware) has been heard by now: the mark `guest`.
    # epitaph() -> str: what its exit code means; refused() -> bool: that code is not the instance's.


Stamp = Callable[[str], None]


class Runtime(Protocol):
    """The interface. packaging: `executable`, `docker-archive`, `machine` or `none`: what an image must be for it.
    typical_boot_ns: one boot with its stop, for estimates only. examples: playbook targets that start the reference
    workload, for the conformance suite; `codes` in one: which exit code is seen here for what the workload ends with.
    """

    packaging: ClassVar[str]
    ready_kinds: ClassVar[tuple[str, ...]]
    starts: ClassVar[tuple[str, ...]]
    typical_boot_ns: ClassVar[int]
    examples: ClassVar[tuple[Mapping[str, Any], ...]]

    def __init__(self, options: Any, context: Context) -> None: ...

    def check(self) -> dict[str, str]:
        """Versions and facts, or Unavailable. Not timed."""

    def prepare(self, image: Image, ready: Ready, files: Mapping[str, str]) -> Prepared:
        """Resolve image and network, place files; `files`: where the image's are on this node, by part. Not timed."""

    def place(self, nonce: str) -> Place:
        """Fix name, address and port of the next instance; StartFailed if there is none. Not timed."""

    def start(self, place: Place, stamp: Stamp) -> Handle:
        """Create and start one instance; stamp what only the runtime sees (`created`; `api_return` if work for the
        handle follows). StartFailed leaves nothing behind."""

    def stop(self, handle: Handle) -> None:
        """End it; returns when the instance no longer exists, or StopFailed."""

    def clean(self, run: str) -> list[str]:
        """Remove what bears the mark of `run` ('': of any run, this one excepted); say what it was."""

    # Optional: objection(options, ready) -> str, static: why a playbook must not ask for this, '' if it may.
    # Optional: install(image, port, cache) -> str, supply(image, previous, port) -> Supply: for images that an engine
    # keeps (`dockersupply.py`); clean_images() -> list[str] removes those that were pushed, and says which they were.

    def close(self) -> None:
        """Let go of what this object holds open in this process; instances and networks are `clean`'s."""


def names() -> list[str]:
    """Every runtime there is, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Any:
    """The module of one runtime: `.Options` and `.Runtime`. KeyError if there is no such file."""
    if name not in names():
        raise KeyError(name)
    return importlib.import_module(f"{__name__}.{name}")


def make(name: str, given: Mapping[str, Any], context: Context) -> Any:
    """A runtime with these options, as the controller says them. Unavailable if it cannot be made of them."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        module = load(name)
        return module.Runtime(module.Options(**options), context)
    except (KeyError, TypeError) as error:
        raise Unavailable(f"{name}: {error}", "does the node run the same version?") from None
    except ValueError as error:
        raise Unavailable(f"{name}: {error}", "correct the node's settings") from None
