"""What a node may be told, and when. Message in -> (messages out, actions); the measurer does the actions.

    new --hello--> open --arm--> armed --stage--> staged --start--> armed
                    ^              |
                    +-- prepare ---+        (what is prepared after ARM was not warmed: arm again)

Between `stage` and `start` lies the time to agree on an instant with other nodes: the first boot is prepared by then.
`offer`, `chunk`, `survey` and `clean` are taken in `open` and `armed`. Whatever is malformed or comes at the
wrong time ends the session with one `fault` that says so: a controller of the same version never sends it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Union

from coldstart.agent.records import Image, Order, Ready, from_json
from coldstart.agent.wire import Message


@dataclass(frozen=True)
class Greet:
    run: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Offer:
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Chunk:
    sha256: str
    data: bytes


@dataclass(frozen=True)
class Prepare:
    target: str
    runtime: str
    options: Mapping[str, Any]
    image: Image
    ready: Ready


@dataclass(frozen=True)
class Arm:
    pass


@dataclass(frozen=True)
class Stage:
    orders: tuple[Order, ...]


@dataclass(frozen=True)
class Start:
    """at_ns: when, on this node's monotonic clock; 0: as soon as the first order's gap is over."""

    at_ns: int


@dataclass(frozen=True)
class Survey:
    pass


@dataclass(frozen=True)
class Clean:
    """run: whose leftovers; empty: those of every dead run. images: empty the cache as well."""

    run: str
    images: bool


@dataclass(frozen=True)
class End:
    pass


Action = Union[Greet, Offer, Chunk, Prepare, Arm, Stage, Start, Survey, Clean, End]
Reply = tuple[str, dict[str, Any]]

_ALLOWED = {
    "new": ("hello",),
    "open": ("offer", "chunk", "prepare", "arm", "survey", "clean"),
    "armed": ("offer", "chunk", "prepare", "arm", "stage", "survey", "clean"),
    "staged": ("start",),
    "ended": (),
}
_NEXT_STATE = {"hello": "open", "prepare": "open", "arm": "armed", "stage": "staged", "start": "armed"}


class Session:
    """The state of one link, seen from the node."""

    def __init__(self) -> None:
        self.state = "new"

    def receive(self, message: Message) -> tuple[list[Reply], list[Action]]:
        """What to answer at once, and what to do."""
        kind = message["type"]
        if kind not in _ALLOWED[self.state]:
            return self._fault(f"{kind!r} is not expected while {self.state}")
        try:
            action = _READ[kind](message)
        except (KeyError, ValueError) as error:
            return self._fault(f"{kind!r} is malformed: {error}")
        self.state = _NEXT_STATE.get(kind, self.state)
        return [], [action]

    def _fault(self, text: str) -> tuple[list[Reply], list[Action]]:
        if self.state == "ended":
            return [], []
        self.state = "ended"
        return [("fault", {"text": text})], [End()]


def _text(message: Message, name: str) -> str:
    return str(_typed(message, name, str))


def _typed(message: Message, name: str, kind: type) -> Any:
    value = message[name]
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r}")
    return value


def _digest(message: Message) -> str:
    digest = _text(message, "sha256")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"sha256 is {digest!r}")  # it becomes a file name: nothing else may
    return digest


def _hello(message: Message) -> Greet:
    settings = _typed(message, "settings", dict)
    if not all(isinstance(value, str) for value in settings.values()):
        raise ValueError("settings are texts")
    return Greet(_text(message, "run"), settings)


def _offer(message: Message) -> Offer:
    size = _typed(message, "size_bytes", int)
    if size < 0:
        raise ValueError(f"size_bytes is {size}")
    return Offer(_digest(message), size)


def _chunk(message: Message) -> Chunk:
    try:
        return Chunk(_digest(message), base64.b64decode(_text(message, "data"), validate=True))
    except binascii.Error as error:
        raise ValueError(f"data: {error}") from None


def _prepare(message: Message) -> Prepare:
    return Prepare(
        _text(message, "target"),
        _text(message, "runtime"),
        _typed(message, "options", dict),
        from_json(Image, message["image"]),
        from_json(Ready, message["ready"]),
    )


def _stage(message: Message) -> Stage:
    orders = tuple(from_json(Order, order) for order in _typed(message, "orders", list))
    if not orders:
        raise ValueError("no orders")
    return Stage(orders)


def _start(message: Message) -> Start:
    at_ns = _typed(message, "at_ns", int)
    if at_ns < 0:
        raise ValueError(f"at_ns is {at_ns}")
    return Start(at_ns)


_READ: dict[str, Callable[[Message], Action]] = {
    "hello": _hello,
    "offer": _offer,
    "chunk": _chunk,
    "prepare": _prepare,
    "arm": lambda _: Arm(),
    "stage": _stage,
    "start": _start,
    "survey": lambda _: Survey(),
    "clean": lambda message: Clean(_text(message, "run"), _typed(message, "images", bool)),
}
