"""What a node may be told, as data: one class for each message of the controller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from coldstart.agent.records import Image, Order, Ready


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
class Fetch:
    """An offered blob; port: of this node's loopback, where the controller's registry answers."""

    sha256: str
    size_bytes: int
    port: int


@dataclass(frozen=True)
class Install:
    """An image that a runtime's engine is to hold; port: as above, 0 if there is none."""

    runtime: str
    options: Mapping[str, Any]
    image: Image
    port: int


@dataclass(frozen=True)
class Prepare:
    """previous: the version that the node has before an `image-absent` start; port: as above."""

    target: str
    runtime: str
    options: Mapping[str, Any]
    image: Image
    ready: Ready
    previous: Image | None = None
    port: int = 0


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


Action = Union[Greet, Offer, Chunk, Fetch, Install, Prepare, Arm, Stage, Start, Survey, Clean, End]
