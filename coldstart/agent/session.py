"""What a node may be told, and when. Message in -> (messages out, actions); the measurer does the actions.

    new --hello--> open --arm--> armed --stage--> staged --start--> armed
                    ^              |
                    +-- prepare ---+        (what is prepared after ARM was not warmed: arm again)

Between `stage` and `start` lies the time to agree on an instant with other nodes: the first boot is prepared by then.
`offer`, `chunk`, `fetch`, `install`, `survey` and `clean` are taken in `open` and `armed`. Whatever is malformed or
comes at the wrong time ends the session with one `fault` that says so: a controller of the same version never sends it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Callable

from coldstart.agent.actions import (
    Action,
    Arm,
    Chunk,
    Clean,
    End,
    Fetch,
    Greet,
    Install,
    Offer,
    Prepare,
    Stage,
    Start,
    Survey,
)
from coldstart.agent.records import Image, Order, Ready, from_json
from coldstart.agent.wire import Message

Reply = tuple[str, dict[str, Any]]

_ANY_TIME = ("offer", "chunk", "fetch", "install", "prepare", "survey", "clean")
_ALLOWED = {
    "new": ("hello",),
    "open": (*_ANY_TIME, "arm"),
    "armed": (*_ANY_TIME, "arm", "stage"),
    "staged": ("start",),
    "ended": (),
}
_NEXT_STATE = {
    "hello": "open",
    "fetch": "open",
    "install": "open",
    "prepare": "open",
    "arm": "armed",
    "stage": "staged",
    "start": "armed",
}


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


def _count(message: Message, name: str) -> int:
    value: int = _typed(message, name, int)
    if value < 0:
        raise ValueError(f"{name} is {value}")
    return value


def _port(message: Message) -> int:
    port = _count(message, "port")
    if port > 65535:
        raise ValueError(f"port is {port}")
    return port


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
    return Offer(_digest(message), _count(message, "size_bytes"))


def _chunk(message: Message) -> Chunk:
    try:
        return Chunk(_digest(message), base64.b64decode(_text(message, "data"), validate=True))
    except binascii.Error as error:
        raise ValueError(f"data: {error}") from None


def _fetch(message: Message) -> Fetch:
    return Fetch(_digest(message), _count(message, "size_bytes"), _port(message))


def _install(message: Message) -> Install:
    options = _typed(message, "options", dict)
    return Install(_text(message, "runtime"), options, from_json(Image, message["image"]), _port(message))


def _prepare(message: Message) -> Prepare:
    previous = message["previous"]
    return Prepare(
        _text(message, "target"),
        _text(message, "runtime"),
        _typed(message, "options", dict),
        from_json(Image, message["image"]),
        from_json(Ready, message["ready"]),
        from_json(Image, previous) if previous is not None else None,
        _port(message),
    )


def _stage(message: Message) -> Stage:
    orders = tuple(from_json(Order, order) for order in _typed(message, "orders", list))
    if not orders:
        raise ValueError("no orders")
    return Stage(orders)


def _start(message: Message) -> Start:
    return Start(_count(message, "at_ns"))


_READ: dict[str, Callable[[Message], Action]] = {
    "hello": _hello,
    "offer": _offer,
    "chunk": _chunk,
    "fetch": _fetch,
    "install": _install,
    "prepare": _prepare,
    "arm": lambda _: Arm(),
    "stage": _stage,
    "start": _start,
    "survey": lambda _: Survey(),
    "clean": lambda message: Clean(_text(message, "run"), _typed(message, "images", bool)),
}
