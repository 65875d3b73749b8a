"""What the controller tells while a sweep runs. Data only: the store keeps it, the progress display draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coldstart.model import Boot, Push, WaveStart


@dataclass(frozen=True)
class NodeUp:
    """A node's agent answers. swept: leftovers of dead runs that it removed on arrival; stuck: that it could not;
    free: bytes, by what (`memory_bytes`, `disk_bytes`)."""

    node: str
    facts: Mapping[str, str]
    swept: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    free: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetReady:
    """A target can be started on a node; transfer_bytes: what had to be sent for it; boots: of each of its trials,
    where the node makes them fewer than planned."""

    node: str
    target: str
    labels: Mapping[str, str]
    facts: Mapping[str, str]
    image_bytes: int
    transfer_bytes: int
    warnings: tuple[str, ...] = ()
    boots: int | None = None


@dataclass(frozen=True)
class Pushing:
    """An image is on its way to a node: bytes that were sent for it, of those it has."""

    node: str
    image: str
    sent_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Pushed:
    """A node holds an image."""

    push: Push


@dataclass(frozen=True)
class NotPushed:
    """A node did not get the image of a target that it could have been given. invalid: there is no such image."""

    node: str
    target: str
    reason: str
    invalid: bool = False


@dataclass(frozen=True)
class Skipped:
    """A target (start: one start kind of it, else all) will not be measured on this node."""

    node: str
    target: str
    reason: str
    start: str = ""


@dataclass(frozen=True)
class BootDone:
    """One boot ended, well or not."""

    node: str
    boot: Boot


@dataclass(frozen=True)
class Waiting:
    """A node is ready for its next wave and waits for the others."""

    node: str


@dataclass(frozen=True)
class Started:
    """A node began a wave."""

    node: str
    start: WaveStart


@dataclass(frozen=True)
class ClockMoved:
    """A node slept, or its wall clock was set, by so much."""

    node: str
    slept_ns: int
    stepped_ns: int


@dataclass(frozen=True)
class LinkLost:
    """The link broke; the controller tries to have it back."""

    node: str
    reason: str


@dataclass(frozen=True)
class NodeDone:
    """Nothing more comes from this node. error: why it ended early; leftovers: what could not be removed."""

    node: str
    error: str = ""
    leftovers: tuple[str, ...] = ()


_Pushes = Pushing | Pushed | NotPushed
_Boots = TargetReady | Skipped | Waiting | Started | BootDone
Event = NodeUp | _Pushes | _Boots | ClockMoved | LinkLost | NodeDone
